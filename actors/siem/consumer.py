"""One consumer of the SIEM stream, on the I/O loop. No thread, no queue: a place in the ring, and one among the records.

It is sent what comes after its place as fast as it reads. One that falls behind the ring is given connects and disconnects
from the store, however far behind it is; what is nowhere else is counted, and it is told.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from coxswain.live.frames import DROPPED
from coxswain.live.ring import Numbered, Stretch
from coxswain.messages.access import WhoHolds
from coxswain.siem.cursor import Cursor
from coxswain.siem.events import gap_event, heartbeat, live_event, record_event, record_number
from coxswain.siem.wanted import Wanted
from coxswain.wire.pharos.monitor.v1 import monitor_pb2 as pb

if TYPE_CHECKING:
    from actors.siem.server import MonitorServer

__all__ = ["Consumer"]

_PAGE = 500
_STRETCH = 256
_DAY_S = 86_400.0


class Consumer:
    """Made by ``MonitorServer`` for each granted stream; everything is for the loop.

    Attributes:
        credential: what is looked at again while the stream lives.
        expires_at: of the credential, epoch seconds; None: never.
        checked_at: when it was last found good, by ``MonitorServer.now``.
        ending: the status that ends the stream, once it has to end.
    """

    def __init__(
        self,
        server: MonitorServer,
        context: Any,
        *,
        wanted: Wanted,
        start: Cursor,
        marks: bool,
        credential: WhoHolds,
        expires_at: float | None,
    ) -> None:
        self.credential = credential
        self.expires_at = expires_at
        self.checked_at = server.now()
        self.ending: tuple[grpc.StatusCode, str] | None = None
        self._server = server
        self._context = context
        self._wanted = wanted
        self._marks = marks
        self._seq, self._record = start.seq, start.record
        self._behind = start.behind and wanted.sessions
        self._seen = server.ring.count_up_to(self._seq, wanted.wants_from_ring)
        self._written_at = server.now()
        self._task = asyncio.current_task()

    @property
    def cursor(self) -> str:
        return str(Cursor(self._seq, self._record, self._behind))

    def end(self, code: grpc.StatusCode, text: str) -> None:
        """Wherever it is, also while it waits for a consumer that does not read."""
        if self.ending is None and self._task is not None:
            self.ending = code, text
            self._task.cancel()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            if self._behind:
                await self._catch_up()
            pulse = self._server.pulse  # taken before the look: what comes after it wakes us
            await self._pump()
            if not self._behind and self._seq == self._server.ring.last:
                await self._rest(pulse)

    async def _rest(self, pulse: asyncio.Event) -> None:
        left = self._written_at + self._server.heartbeat_s - self._server.now()
        try:
            await asyncio.wait_for(pulse.wait(), max(left, 0.01) if self._marks else None)
        except TimeoutError:
            await self._write(heartbeat(self._server.wall(), self.cursor))

    # -- from the ring

    async def _pump(self) -> None:
        """Up to its end, or to where something is missing."""
        while not self._behind:
            stretch = self._server.ring.after(self._seq, _STRETCH)
            if stretch.missed != 0:
                await self._miss(stretch)
                continue
            for event in stretch.events:
                await self._take(event)
                if self._behind:
                    return
            if not stretch.events:
                return

    async def _take(self, event: Numbered) -> None:
        kind = event.event.kind
        self._seq = event.seq
        if kind == DROPPED:
            await self._lose(str(event.event.data.get("reason", "")))
            return
        if self._seen is not None and self._wanted.wants_from_ring(kind):
            self._seen += 1
        number = record_number(event)
        if number is not None:
            if number <= self._record:
                return  # it came from the store already
            self._record = number
        if self._wanted.wants(kind):
            await self._write(live_event(event, self.cursor))

    async def _miss(self, stretch: Stretch) -> None:
        """Events that it had not seen are no longer in the ring; goes on with those that are."""
        self._seq, count = self._server.ring.count_gone(self._wanted.wants_from_ring)
        if self._wanted.from_ring:
            dropped = None if stretch.missed is None or self._seen is None else count - self._seen
            await self._tell_gap(dropped, "restart" if stretch.missed is None else "behind")
        self._seen = count
        self._behind = self._wanted.sessions

    async def _lose(self, reason: str) -> None:
        """The hub says that events were never numbered: those of a flood are of nodes alone."""
        if self._wanted.from_ring and (reason != "flood" or self._wanted.wants("ERROR")):
            await self._tell_gap(None, "restart" if reason == "restart" else "behind")
        self._behind = self._wanted.sessions

    async def _tell_gap(self, dropped: int | None, reason: str) -> None:
        if dropped == 0:
            return
        self._server.count_dropped(dropped)
        if self._marks:
            await self._write(gap_event(self._server.wall(), self.cursor, dropped, reason))

    # -- from the store

    async def _catch_up(self) -> None:
        """All records after the last one that was told, up to now. What happens meanwhile is in the ring as well."""
        keep_s = self._server.keep_days() * _DAY_S
        if keep_s > 0 and 0 < self._record / 1e6 < self._server.wall() - keep_s:
            await self._tell_gap(None, "retention")
        while True:
            page = await self._server.page(self._record, _PAGE)
            for record in page:
                self._record = record.seq
                if ("connect" if record.reason is None else "disconnect") in self._wanted.kinds:
                    await self._write(record_event(record, self.cursor))
                    self._server.count_late()
            if len(page) < _PAGE:
                self._behind = False
                return

    async def _write(self, event: pb.MonitorEvent) -> None:
        """Waits for a consumer that does not read, and keeps nothing for it meanwhile."""
        await self._context.write(event.SerializeToString())
        self._written_at = self._server.now()
        self._server.count_sent()
