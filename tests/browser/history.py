"""A month that looks like one, for charts: days and nights, an outage, and a time of which nobody knows anything."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence

from coxswain.metering import FLEET, STEP_S, Cell
from coxswain.store import Store
from coxswain.store import metric_series as rows

_DAYS = 30


def write_history(store: Store, node_ids: Sequence[str], seed: int = 5) -> None:
    """Up to an hour ago: what is measured meanwhile comes after it."""
    rng = random.Random(seed)
    last = int(time.time() - 3_600) // STEP_S
    cells: dict[tuple[str, int], Cell] = {}
    for place, node_id in enumerate(node_ids):
        level = 1.0
        for bucket in range(last - _DAYS * 86_400 // STEP_S, last):
            ago_h = (last - bucket) * STEP_S / 3_600
            if 14.0 < ago_h < 15.5:  # the controller was switched off
                continue
            level = min(1.6, max(0.6, level + rng.gauss(0, 0.05)))
            hour = (bucket * STEP_S / 3_600) % 24
            sessions = max(0.0, (18 + 4 * place) * level * (0.55 - 0.45 * math.cos((hour - 4) / 24 * 2 * math.pi)))
            up_s = 0.0 if place == 0 and 6.0 < ago_h < 6.8 else float(STEP_S)
            cell = Cell(watched_s=STEP_S, up_s=up_s)
            if up_s:
                cell.known_s, cell.session_s, cell.traffic_s = up_s, sessions * up_s, up_s
                cell.tx_bytes, cell.rx_bytes = sessions * 120_000 * up_s * rng.uniform(0.8, 1.3), sessions * 21_000 * up_s
            cells[node_id, bucket] = cell
            fleet = cells.setdefault((FLEET, bucket), Cell(known_s=STEP_S))
            fleet.add(
                1.0,
                watched_s=STEP_S,
                up_s=up_s,
                session_s=cell.session_s,
                traffic_s=cell.traffic_s,
                rx_bytes=cell.rx_bytes,
                tx_bytes=cell.tx_bytes,
            )
    with store.write() as tx:
        rows.add(tx, cells)
