"""Peers of many nodes at once, with the users and devices that they belong to."""

from __future__ import annotations

from typing import Any

from coxswain.api.bodies import MOST_BODY_BYTES, peer_change
from coxswain.api.call import Call
from coxswain.api.route import Route, Scope
from coxswain.api.schema import INT, TEXT, array, choice, obj
from coxswain.messages import fleet

__all__ = ["ROUTES"]

_PROTOCOL = choice("amneziawg", "xray-reality")
_USER = obj({"id": TEXT}, {"name": TEXT, "email": TEXT})
_DEVICE = obj({"id": TEXT, "user_id": TEXT}, {"name": TEXT, "platform": TEXT})
_PEER = obj(
    {"id": TEXT, "node_id": TEXT, "device_id": TEXT, "public_key": TEXT},
    {"protocol": _PROTOCOL, "allowed_ips": array(TEXT), "preshared_key": TEXT, "flow": TEXT},
)
_REMOVAL = obj({"node_id": TEXT, "public_key": TEXT}, {"protocol": _PROTOCOL})


def _apply(call: Call) -> Any:
    users, devices, add, remove = peer_change(call.body)
    return {"revisions": call.change("fleet", fleet.ApplyPeers(call.caller, users, devices, add, remove))}


ROUTES = (
    Route(
        "POST",
        "/api/peers",
        Scope.ADMIN,
        "Adds and removes peers of any number of nodes, in one step.",
        _apply,
        "peers.apply",
        "fleet",
        obj({"revisions": {"type": "object", "additionalProperties": INT}}),
        also=(404, 409),
        body=obj({}, {"users": array(_USER), "devices": array(_DEVICE), "add": array(_PEER), "remove": array(_REMOVAL)}),
        max_body=MOST_BODY_BYTES,
    ),
)
