"""What was acknowledged, and what became of it: counted in the database itself, with the daemon dead."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from coxswain.cli.client import Client
from coxswain.errors import CoxswainError


@dataclass
class Ledger:
    """Devices whose addition was asked for, and those of which the daemon said that they were added."""

    tried: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)

    def check(self, database: Path) -> tuple[int, int]:
        """Returns how many acknowledged changes are not all there (peer and audit record), and how many changes,
        acknowledged or not, were made but have no audit record or more than one.
        """
        connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            peers = Counter(row[0] for row in connection.execute("SELECT device_id FROM peers"))
            records: Counter[str] = Counter()
            both = "SELECT detail FROM audit_log UNION ALL SELECT detail FROM audit_outbox"
            for (detail,) in connection.execute(both):
                records.update(json.loads(detail or "{}").get("devices", ()))
            numbered = connection.execute("SELECT COUNT(*), COALESCE(MAX(seq), 0) FROM audit_log").fetchone()
        finally:
            connection.close()
        lost = sum(1 for device in self.acknowledged if peers[device] != 1 or not records[device])
        wrong = sum(1 for device in self.tried if (peers[device], records[device]) not in ((0, 0), (1, 1)))
        return lost, wrong + (numbered is None or numbered[0] != numbered[1])


class Writers:
    """Threads that add devices as fast as they are answered, until the daemon is gone."""

    def __init__(self, ledger: Ledger, socket: Path, body: Callable[[], dict[str, Any]], threads: int = 4) -> None:
        self._ledger = ledger
        self._socket = socket
        self._body = body
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._write, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)

    def _write(self) -> None:
        client = Client(self._socket, 30)
        while not self._stopped.is_set():
            with self._lock:
                body = self._body()
                added = [device["id"] for device in body["devices"]]
                self._ledger.tried += added
            try:
                client.post("/api/peers", body)
            except (CoxswainError, OSError):
                return  # it was killed; whether this one was made is open, and both are right
            with self._lock:
                self._ledger.acknowledged += added
