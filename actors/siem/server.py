"""The gRPC server of the SIEM stream, on the I/O loop. Outlives every actor and every loop."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from actors.io_loop import IoLoop
from actors.siem.consumer import Consumer
from coxswain.access.secrets import digest
from coxswain.clock import Clock
from coxswain.errors import CoxswainError, InvalidInput, Refused, Throttled, Unauthenticated
from coxswain.live.ring import EventRing
from coxswain.losses import SIEM, Losses
from coxswain.messages.access import Authenticated, WhoHolds
from coxswain.messages.sessions import SessionRecord
from coxswain.messages.siem import SiemCounts
from coxswain.siem.cursor import Cursor
from coxswain.siem.tls import MonitorTls
from coxswain.siem.wanted import Wanted
from coxswain.wire.pharos.monitor.v1 import monitor_pb2 as pb

__all__ = ["SERVICE", "Admit", "Admitted", "MonitorServer", "Page"]

SERVICE = "pharos.monitor.v1.MonitorStream"

_BEARER = re.compile(r"bearer +(cox_[A-Za-z0-9_-]{1,128}) *", re.IGNORECASE)
_MOST = 64
"""Consumers, and those that want to become one, together."""

_ADMIT_S = 20.0
_PAGE_S = 10.0
_RETRY_S = 5.0
_STOP_S = 0.5
_HEARTBEAT_S = 25.0

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.max_metadata_size", 16 * 1024),
    # A port that is taken has to be noticed, not shared.
    ("grpc.so_reuseport", 0),
    # Dead consumers are found; live ones may ping as often as they like, within reason.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # Who connects and asks for nothing is not kept.
    ("grpc.max_connection_idle_ms", 300_000),
)

_ABANDONED: list[object] = []
"""Servers whose loop ended without stopping them, as when it was stuck: their memory must not become another's."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Admit:
    """To ``siem_stream``: who is this, and may they? ``reply`` is safe on every thread; gets ``Admitted``, or the error.

    ``credential`` None: none that could be one. ``problem``: the request is no good, so nothing begins.
    """

    credential: WhoHolds | None
    wanted: Wanted
    resumes: bool
    problem: bool
    address: str
    reply: Callable[[Any], None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Admitted:
    """``record``: the number of the newest session record just now."""

    who: Authenticated
    record: int


@dataclass(frozen=True, slots=True)
class Page:
    """To ``siem_stream``: session records after ``seq``. ``reply`` gets a list of them, or the error."""

    seq: int
    limit: int
    reply: Callable[[Any], None] = field(repr=False)


class MonitorServer:
    """``open``, ``wake`` and ``counts`` are safe on every thread, all else is for the loop.

    Args:
        io: the loop.
        ring: what happens.
        clock: the time.
        listen: ``host:port`` or ``:port``.
        tls: None: not encrypted.
        keep_days: for how many days session records are kept; 0 or less: for ever.
        heartbeat_s: after so many quiet seconds those who want marks get one.
        losses: where what consumers missed is counted, for the alert rules.
    """

    def __init__(
        self,
        io: IoLoop,
        ring: EventRing,
        clock: Clock,
        *,
        listen: str,
        tls: MonitorTls | None = None,
        keep_days: Callable[[], int] = lambda: 0,
        heartbeat_s: float = _HEARTBEAT_S,
        losses: Losses | None = None,
    ) -> None:
        self.ring = ring
        self.keep_days = keep_days
        self.heartbeat_s = heartbeat_s
        self.pulse = asyncio.Event()
        self._io = io
        self._clock = clock
        self._losses = Losses(clock) if losses is None else losses
        self._listen = listen
        self._tls = tls
        self._tell: Callable[[Any], object] = lambda _message: None
        self._is_wanted = False
        self._server: grpc.aio.Server | None = None
        self._starting: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self._problem = ""
        self._consumers: set[Consumer] = set()
        self._coming = 0
        self._woken = False
        self._served = self._sent = self._late = self._dropped = 0

    # -- from other threads

    def open(self, tell: Callable[[Any], object]) -> None:
        """From now on it listens, again and again if need be. ``tell``: a message to ``siem_stream``; must not block."""
        self._tell = tell
        self._is_wanted = True
        self._io.call(self.tend)

    def wake(self) -> None:
        """There is something new in the ring."""
        if self._consumers and not self._woken:
            self._woken = True
            self._io.call(self._beat)

    def is_watched(self) -> bool:
        return bool(self._consumers)

    def counts(self) -> SiemCounts:
        return SiemCounts(
            self._server is not None,
            self._problem,
            len(self._consumers),
            self._served,
            self._sent,
            self._late,
            self._dropped,
        )

    # -- on the loop

    def reset(self) -> None:
        """A new loop: what was on the old one is gone; consumers come back, and resume."""
        if self._server is not None:
            _ABANDONED.append(self._server)
        self._server = self._starting = None
        self._consumers.clear()
        self._coming = 0
        self._woken = False
        self.pulse = asyncio.Event()
        self.tend()

    def tend(self) -> None:
        """Listens, if it is to and does not."""
        if self._is_wanted and self._server is None and self._starting is None and self.now() >= self._retry_at:
            self._starting = asyncio.get_running_loop().create_task(self._serve())

    async def close(self) -> None:
        """Ends all streams, and listens no more. Returns within some seconds, whatever consumers do."""
        self._is_wanted = False
        await self.let_go()

    async def let_go(self) -> None:
        """The same, for this loop; on the next one it listens again."""
        text = "the controller stops; come back with the cursor"
        self.end_where(lambda _consumer: True, grpc.StatusCode.UNAVAILABLE, text)
        serving = self._starting
        if serving is not None:
            serving.cancel()
            await asyncio.wait([serving], timeout=2 * _STOP_S + 1.0)

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return self._clock.now()

    def due(self, before: float, wall: float) -> dict[WhoHolds, float]:
        """As of ``actors.live.Fanout``."""
        found: dict[WhoHolds, float] = {}
        for consumer in self._consumers:
            if consumer.checked_at < before or (consumer.expires_at or wall) < wall:
                found[consumer.credential] = min(consumer.checked_at, found.get(consumer.credential, consumer.checked_at))
        return found

    def settle(self, good: Iterable[WhoHolds], ended: Iterable[WhoHolds]) -> None:
        """What became of those that were due."""
        fine, gone, now = frozenset(good), frozenset(ended), self.now()
        for consumer in self._consumers:
            if consumer.credential in fine:
                consumer.checked_at = now
        text = "the token is not good any more"
        self.end_where(lambda consumer: consumer.credential in gone, grpc.StatusCode.UNAUTHENTICATED, text)

    def end_where(self, wanted: Callable[[Consumer], bool], code: grpc.StatusCode, text: str) -> None:
        for consumer in list(self._consumers):
            if wanted(consumer):
                consumer.end(code, text)

    def count_sent(self) -> None:
        self._sent += 1

    def count_late(self) -> None:
        self._late += 1

    def count_dropped(self, dropped: int | None) -> None:
        self._dropped += dropped or 0
        self._losses.add(SIEM, dropped or 0)

    async def page(self, seq: int, limit: int) -> list[SessionRecord]:
        """Session records after ``seq``. While nobody can say, this waits; the consumer has missed nothing by it."""
        while True:
            try:
                found: list[SessionRecord] = await self._ask(lambda reply: Page(seq, limit, reply), _PAGE_S)
            except CoxswainError as error:
                _log.warning("SIEM stream: a consumer waits for session records: %s", error)
                await asyncio.sleep(1.0)
            else:
                return found

    # -- listening

    async def _serve(self) -> None:
        """One server, from its first moment to its last; cancelled with its loop or by ``close``."""
        try:
            server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=2 * _MOST)
            server.add_generic_rpc_handlers((self._handler(),))
            try:
                self._bind(server)
                await server.start()
                self._server, self._problem = server, ""
                how = "TLS" if self._tls is not None else "not encrypted"
                _log.info("SIEM stream on %s, %s", self._listen, how)
                await asyncio.Event().wait()
            finally:
                if self._server is server:
                    self._server = None
                await server.stop(_STOP_S)
        except Exception as error:  # also a bug must not end it for good
            self._retry_at = self.now() + _RETRY_S
            if str(error) != self._problem:
                _log.warning("SIEM stream: nobody can subscribe; it is tried again every %g s: %s", _RETRY_S, error)
            self._problem = str(error)
        finally:
            if self._starting is asyncio.current_task():
                self._starting = None

    def _bind(self, server: grpc.aio.Server) -> None:
        """Raises ``Refused``."""
        host, _, port = self._listen.rpartition(":")
        credentials = None if self._tls is None else self._tls.credentials()
        for target in (self._listen,) if host else (f"[::]:{port}", f"0.0.0.0:{port}"):
            try:
                if credentials is None:
                    bound = server.add_insecure_port(target)
                else:
                    bound = server.add_secure_port(target, credentials)
            except RuntimeError:
                continue
            if bound:
                return
        raise Refused(f"siem.listen: {self._listen} cannot be listened on; is the port taken?")

    def _handler(self) -> grpc.GenericRpcHandler:
        methods = {"Subscribe": grpc.unary_stream_rpc_method_handler(cast("Any", self._subscribe))}
        return cast("grpc.GenericRpcHandler", grpc.method_handlers_generic_handler(SERVICE, methods))

    def _beat(self) -> None:
        self._woken = False
        pulse, self.pulse = self.pulse, asyncio.Event()
        pulse.set()

    # -- one stream

    async def _subscribe(self, content: bytes, context: Any) -> None:
        try:
            consumer, more = await self._admit(content, context)
        except CoxswainError as error:
            await context.abort(_code_of(error), str(error))
            return
        self._consumers.add(consumer)
        self._served += 1
        try:
            # Said at once, so that a consumer knows from where on it misses nothing.
            await context.send_initial_metadata((("cox-cursor", consumer.cursor), *more))
            await consumer.run()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if consumer.ending is None or task is None:
                raise  # it went away
            task.uncancel()
            code, text = consumer.ending
            await context.abort(code, text)
        except Exception:
            if context.done():
                return  # it went away in the middle of a write
            _log.exception("SIEM stream: a consumer's stream failed")
            await context.abort(grpc.StatusCode.INTERNAL, "the stream failed; come back with the cursor")
        finally:
            self._consumers.discard(consumer)

    async def _admit(self, content: bytes, context: Any) -> tuple[Consumer, tuple[tuple[str, str], ...]]:
        """Raises ``CoxswainError``. Who has no good token learns nothing else."""
        if len(self._consumers) + self._coming >= _MOST:
            raise Throttled(f"{_MOST} consumers are there, and that is the most", retry_after=60)
        credential = _credential(context)
        problem: InvalidInput | None = None
        wanted, cursor, marks = Wanted(frozenset()), None, False
        try:
            wanted, cursor, marks = _request(content)
        except InvalidInput as error:
            problem = error
        self._coming += 1
        try:
            admitted: Admitted = await self._ask(
                lambda reply: Admit(
                    credential, wanted, cursor is not None, problem is not None, _address(context.peer()), reply
                ),
                _ADMIT_S,
            )
        finally:
            self._coming -= 1
        if problem is not None or credential is None:
            raise problem or Unauthenticated("a token is needed")
        consumer = Consumer(
            self,
            context,
            wanted=wanted,
            start=cursor or Cursor(self.ring.last, admitted.record),
            marks=marks,
            credential=WhoHolds(credential.digest, cookie=False, touch=False),
            expires_at=admitted.who.expires_at,
        )
        more = (("cox-unknown-kinds", ",".join(wanted.unknown)),) if wanted.unknown else ()
        return consumer, more

    async def _ask(self, message: Callable[[Callable[[Any], None]], Any], deadline: float) -> Any:
        """Asks ``siem_stream`` without blocking the loop. Raises ``CoxswainError``."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def settle(answer: Any) -> None:
            if future.done():
                return
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self._tell(message(lambda answer: self._io.call(lambda: settle(answer))))
        try:
            return await asyncio.wait_for(future, deadline)
        except TimeoutError:
            raise CoxswainError("a part of the controller does not answer just now; try again") from None


def _request(content: bytes) -> tuple[Wanted, Cursor | None, bool]:
    """Raises ``InvalidInput``."""
    try:
        request = pb.SubscribeRequest.FromString(content)
    except DecodeError:
        raise InvalidInput("the request is no SubscribeRequest") from None
    wanted = Wanted.of(request.kinds)
    if not wanted.kinds:
        names = ", ".join(ascii(name[:40]) for name in wanted.unknown[:5])
        raise InvalidInput(f"kinds: there is no {names}; there are connect, disconnect, alert, and those in docs/siem.md")
    return wanted, Cursor.parse(request.cursor) if request.cursor else None, request.marks


def _credential(context: Any) -> WhoHolds | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            match = _BEARER.fullmatch(value if isinstance(value, str) else "")
            return WhoHolds(digest(match[1]), cookie=False) if match else None
    return None


def _address(peer: str) -> str:
    """From gRPC's ``ipv4:192.0.2.1:443`` or ``ipv6:%5B2001:db8::1%5D:443``."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


def _code_of(error: CoxswainError) -> grpc.StatusCode:
    for cls, code in (
        (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
        (Refused, grpc.StatusCode.PERMISSION_DENIED),
        (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
        (Throttled, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        if isinstance(error, cls):
            return code
    return grpc.StatusCode.UNAVAILABLE
