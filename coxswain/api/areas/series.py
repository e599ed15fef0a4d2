"""What the fleet did over time: sessions, traffic, availability of links, as the charts of the dashboard show it."""

from __future__ import annotations

from typing import Any

from coxswain.api import views
from coxswain.api.call import Call
from coxswain.api.route import Param, Route, Scope
from coxswain.api.schema import INT, NUMBER, STAMP, TEXT, array, limited, nullable, obj, shape
from coxswain.errors import InvalidInput
from coxswain.messages.meter import GetSeries
from coxswain.metering import FLEET, STEPS

__all__ = ["ROUTES"]

SERIES = shape(
    "Series",
    obj(
        {
            "node_id": nullable(TEXT),
            "since": STAMP,
            "until": STAMP,
            "step_seconds": INT,
            "points": array(
                obj(
                    {
                        "at": STAMP,
                        "sessions": nullable(NUMBER),
                        "rx_bytes_per_second": nullable(NUMBER),
                        "tx_bytes_per_second": nullable(NUMBER),
                        "availability": nullable(NUMBER),
                    }
                )
            ),
        }
    ),
)


def _series(call: Call) -> Any:
    step = call.number("step", 0) or None
    if step is not None and step not in STEPS:
        raise InvalidInput(f"step: {step} is none of {', '.join(map(str, STEPS))}")
    node = call.word("node")
    node_id = FLEET if node is None else call.node(node).id
    query = GetSeries(_moment(call, "since"), _moment(call, "until"), step, node_id)
    return views.series(node_id, call.ask("meter", query))


def _moment(call: Call, name: str) -> int | None:
    micros = call.instant(name)
    return None if micros is None else micros // 1_000_000


ROUTES = (
    Route(
        "GET",
        "/api/metrics/series",
        Scope.MONITOR,
        "Sessions, traffic and availability over time, of a node or of the fleet.",
        _series,
        returns=SERIES,
        also=(404,),
        query=(
            Param("node", "id or name of the node; absent: the whole fleet"),
            Param("since", "not before this time; absent: a day before until", STAMP),
            Param("until", "before this time; absent: now", STAMP),
            Param("step", "seconds of a point; 0 or absent: as fits", limited(0, 86_400)),
        ),
    ),
)
