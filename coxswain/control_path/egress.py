"""Egress chains: one session with each hop, shared by everything that goes that way (relay-contract.md 5).

An existing relay serves **one session at a time**; the next one hangs in its TLS handshake until the first has gone (5.4).
So a session belongs to this process, is made once however many want it, carries all connections as substreams, and is known
by the hops that lead to it. Where two routes need the same relay by different ways, the route that is in force takes it over
from one that was asked for a single connection, never the other way round.

Everything here is on the I/O loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence

from coxswain.clock import Clock
from coxswain.control_path.announce import Announcer
from coxswain.control_path.model import Hop
from coxswain.errors import CoxswainError, NodeUnreachable, Unavailable
from coxswain.inventory import host_of
from coxswain.relay.byte_stream import ByteStream, SocketStream, WatchedStream
from coxswain.relay.policy import TAKES_POLICIES
from coxswain.relay.stream_tls import TlsStream, tls_over
from coxswain.relay.yamux import Session

__all__ = ["EgressPool", "SharedSession", "connect_line", "dial_tcp"]

DIAL_S = 10.0
"""For TCP, and again for the TLS handshake of each hop (relay-contract.md 5.5)."""

_RIVAL_S = 3.0
_ANSWER_S = 10.0
_TELL_S = 5.0
_IDLE_S = 60.0
_AFTER_FAILURE_S = 1.0
_MOST_LINE = 255

_log = logging.getLogger(__name__)


def connect_line(target: str) -> bytes:
    """What a substream begins with: ``host:port``, LF; no verb, no CR (relay-contract.md 5.2). Raises
    ``NodeUnreachable``.
    """
    line = target.encode()
    if not line or len(line) > _MOST_LINE or b"\n" in line or b"\r" in line:
        raise NodeUnreachable(f"{target[:80]!r} is no address that an egress relay takes")
    return line + b"\n"


class SharedSession:
    """One hop, reached and multiplexed. ``hops``: the way to it, itself included."""

    def __init__(
        self,
        hops: tuple[Hop, ...],
        session: Session,
        on_idle: Callable[[SharedSession], None],
        announcer: Announcer | None = None,
        *,
        takes_policies: bool = True,
    ) -> None:
        self._takes_policies = takes_policies
        self.hops = hops
        self._session = session
        self._on_idle = on_idle
        self._announcer = announcer or Announcer()
        self.streams = 0
        self.alive = True
        self.retired = False
        self.idle_since = asyncio.get_running_loop().time()

    async def open(self, target: str) -> ByteStream:
        """A connection from this relay to ``target``; whether anybody answers there shows in what comes back (5.2)."""
        line = connect_line(target)
        await self.tell(target)
        self.streams += 1
        try:
            stream = await self._session.open_stream()
            try:
                await stream.write(line)
            except BaseException:
                stream.abort()  # an existing relay waits for the line for ever
                raise
        except BaseException:
            self._ended_one()
            raise
        return WatchedStream(stream, self._ended_one)

    async def tell(self, target: str | None = None) -> None:
        """The relay knows where it may connect, ``target`` included, or takes no such thing. Raises ``OSError``."""
        if self._takes_policies:
            await self._announcer.tell(self.hops[-1], self._session.open_stream, target)
        else:
            self._announcer.takes_none(self.hops[-1])

    async def ping(self) -> float:
        """Seconds that the relay took to answer. Raises ``OSError``."""
        return await self._session.ping()

    async def ended(self) -> str:
        """Returns when the session is over, and why."""
        return await self._session.wait_closed()

    def close(self) -> None:
        """At once; what still goes through it ends."""
        self.alive = False
        self._session.abort()

    def _ended_one(self) -> None:
        self.streams -= 1
        if not self.streams:
            self.idle_since = asyncio.get_running_loop().time()
            self._on_idle(self)


class EgressPool:
    """All sessions of this process."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._context: ssl.SSLContext | None = None
        self.announcer = Announcer(clock)
        self.on_back: Callable[[], object] = lambda: None
        """Called when the route in force can be taken again, after it could not."""
        self.reset()

    def reset(self) -> None:
        """A new loop: what was on the old one is gone."""
        self._sessions: dict[tuple[Hop, ...], SharedSession] = {}
        self._dials: dict[tuple[Hop, ...], asyncio.Task[SharedSession]] = {}
        self._failed: dict[tuple[Hop, ...], tuple[float, CoxswainError]] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self.announcer.reset()
        self._kept: tuple[Hop, ...] = ()
        self._claimed: tuple[Hop, ...] | None = None
        self._was_down = False

    def use(self, context: ssl.SSLContext) -> None:
        """From now on hops are shown this. Any thread."""
        self._context = context

    def keep(self, hops: tuple[Hop, ...]) -> None:
        """The hops of the route in force. Sessions with others are closed as soon as nothing goes through them."""
        self._kept = hops
        self._claimed = None
        self._was_down = False
        self._failed.clear()
        self._tidy()

    def claim(self, hops: tuple[Hop, ...] | None) -> None:
        """The route that is being probed may take relays over from any other; None: no more, and what it left idle goes."""
        self._claimed = hops
        self._failed.clear()
        self._tidy()

    def release(self, hops: tuple[Hop, ...]) -> None:
        """The probe of these hops was for nothing if they are not in force by now."""
        if self._claimed == hops:
            self.claim(None)

    async def open(self, hops: Sequence[Hop], target: str, *, precedence: bool) -> ByteStream:
        """A connection to ``target`` from the last of ``hops``.

        Args:
            hops: at least one.
            target: ``host:port``.
            precedence: it belongs to the route in force, or to the one that is being probed.

        Raises:
            NodeUnreachable: names the hop that does not answer.
            Unavailable: there is no certificate yet.
        """
        way = tuple(hops)
        for attempt in (1, 2):
            session = await self.session(way, precedence=precedence)
            try:
                return await session.open(target)
            except OSError as error:
                self._drop(session)
                if attempt == 2:
                    raise NodeUnreachable(f"relay {way[-1].name}: {_words(error)}") from None
        raise AssertionError

    async def session(self, way: tuple[Hop, ...], *, precedence: bool) -> SharedSession:
        """The session with the last of these hops; made if need be, once for all who wait. Raises as ``open``."""
        found = self._sessions.get(way)
        if found is not None and found.alive:
            return found
        loop = asyncio.get_running_loop()
        failed_at, failure = self._failed.get(way, (float("-inf"), None))
        if failure is not None and loop.time() - failed_at < _AFTER_FAILURE_S:
            raise type(failure)(str(failure))
        dial = self._dials.get(way)
        if dial is None:
            dial = loop.create_task(self._dial(way, precedence=precedence))
            self._dials[way] = dial
            dial.add_done_callback(lambda done: self._dialled(way, done))
        return await asyncio.shield(dial)  # one of many who wait may give up, and the others not

    @property
    def standing(self) -> int:
        """How many sessions there are. Any thread."""
        return len(self._sessions)

    async def tell(self, hops: tuple[Hop, ...], targets: Sequence[str | None]) -> None:
        """Each hop of a circuit knows where it may connect, as far as it can be told: by its egress role, in their order.

        Args:
            targets: what each hop is about to be asked for.
        """
        for position, (hop, target) in enumerate(zip(hops, targets, strict=True), start=1):
            if self.announcer.is_told(hop, target):
                continue
            try:
                async with asyncio.timeout(_TELL_S):
                    session = await self.session(hops[:position], precedence=False)
                    await session.tell(target)
            except (CoxswainError, OSError) as error:
                self.announcer.failed(hop)
                _log.warning("relay %s cannot be told where it may connect: %s", hop.name, error or "no answer in time")

    async def tell_all(self) -> None:
        """The inventory has changed: whoever is connected hears of it now, and not with the next connection."""
        for session in list(self._sessions.values()):
            if session.alive:
                with contextlib.suppress(OSError):
                    await session.tell()

    # -- inside

    def _dialled(self, way: tuple[Hop, ...], done: asyncio.Task[SharedSession]) -> None:
        self._dials.pop(way, None)
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            self._failed.pop(way, None)
            if way == self._kept and self._was_down:
                self._was_down = False
                self.on_back()
        elif isinstance(error, CoxswainError):
            self._was_down = self._was_down or way == self._kept
            self._failed[way] = (asyncio.get_running_loop().time(), error)

    async def _dial(self, way: tuple[Hop, ...], *, precedence: bool) -> SharedSession:
        rival = self._rival(way)
        if rival is not None and not rival.streams:
            self._drop(rival)
            rival = None
        may_take = rival is not None and precedence and self._may_take(way, rival)
        try:
            session = await self._attempt(way, _RIVAL_S if may_take else DIAL_S, precedence=precedence)
        except _BusyError:
            if rival is None or not may_take:
                raise NodeUnreachable(_busy(way[-1], rival)) from None
            _log.info("relay %s serves one session at a time; the one by another way is closed", way[-1].name)
            self._drop(rival)
            try:
                session = await self._attempt(way, DIAL_S, precedence=precedence)
            except _BusyError:
                raise NodeUnreachable(_busy(way[-1], None)) from None
        self._sessions[way] = session
        watcher = asyncio.get_running_loop().create_task(self._watch(session))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        self._on_idle(session)
        return session

    async def _attempt(self, way: tuple[Hop, ...], handshake_s: float, *, precedence: bool) -> SharedSession:
        hop = way[-1]
        if self._context is None:
            raise Unavailable("the certificate authority gave no credentials yet")
        stream: ByteStream
        if len(way) == 1:
            try:
                stream = await dial_tcp(hop.egress, DIAL_S)
            except NodeUnreachable as error:
                raise NodeUnreachable(f"relay {hop.name} does not answer: {error}") from None
        else:
            stream = await self.open(way[:-1], hop.egress, precedence=precedence)
        try:
            tls = await tls_over(stream, self._context, server_name=host_of(hop.egress), within_s=handshake_s)
        except TimeoutError:
            raise _BusyError from None
        except ConnectionResetError:
            reached = f"; relay {way[-2].name} may not reach it" if len(way) > 1 else ""
            raise NodeUnreachable(f"relay {hop.name} ({hop.egress}): closed during the TLS handshake{reached}") from None
        except OSError as error:
            raise NodeUnreachable(f"relay {hop.name} ({hop.egress}): {_words(error)}") from None
        return await self._multiplex(way, tls)

    async def _multiplex(self, way: tuple[Hop, ...], tls: TlsStream) -> SharedSession:
        """It is connected when a ping was answered: only then has the relay judged our certificate (relay-contract.md
        1.3).
        """
        hop = way[-1]
        session = Session(tls, client=True)
        session.start()
        try:
            await session.ping(_ANSWER_S)
        except OSError as error:
            session.abort()
            why = "no answer on the session" if isinstance(error, TimeoutError) else _words(error)
            raise NodeUnreachable(f"relay {hop.name} ({hop.egress}) does not take us: {why}") from None
        except BaseException:
            session.abort()
            raise
        self.announcer.forget(hop)
        return SharedSession(way, session, self._on_idle, self.announcer, takes_policies=tls.alpn == TAKES_POLICIES)

    async def _watch(self, session: SharedSession) -> None:
        await session.ended()
        self._was_down = self._was_down or session.hops == self._kept
        self._drop(session)

    def _drop(self, session: SharedSession) -> None:
        session.close()
        if self._sessions.get(session.hops) is session:
            del self._sessions[session.hops]

    def _rival(self, way: tuple[Hop, ...]) -> SharedSession | None:
        """Another session that the same relay is serving."""
        return next((s for s in self._sessions.values() if s.alive and s.hops[-1].egress == way[-1].egress), None)

    def _may_take(self, way: tuple[Hop, ...], rival: SharedSession) -> bool:
        """What is being probed comes before what is in force, and that before a route for one connection."""
        if self._claimed is None:
            return not _is_on(rival.hops, self._kept)
        return _is_on(way, self._claimed)

    def _is_wanted(self, session: SharedSession) -> bool:
        return _is_on(session.hops, self._kept) or (self._claimed is not None and _is_on(session.hops, self._claimed))

    def _tidy(self) -> None:
        """Innermost first: a session is a stream of the one before it."""
        for session in sorted(self._sessions.values(), key=lambda s: -len(s.hops)):
            session.retired = not self._is_wanted(session)
            if session.retired and not session.streams:
                self._drop(session)

    def _on_idle(self, session: SharedSession) -> None:
        """What was used for a single connection may be used for the next one soon; what the route left, not."""
        if session.retired:
            self._drop(session)
        elif session.alive and not self._is_wanted(session):
            asyncio.get_running_loop().call_later(_IDLE_S, self._close_if_idle, session)

    def _close_if_idle(self, session: SharedSession) -> None:
        long_idle = asyncio.get_running_loop().time() - session.idle_since >= _IDLE_S / 2
        if not session.streams and long_idle and not self._is_wanted(session):
            self._drop(session)


async def dial_tcp(endpoint: str, within: float) -> SocketStream:
    """Connects to ``host:port``. Raises ``NodeUnreachable`` without saying what it was for."""
    host, _, port = endpoint.rpartition(":")
    try:
        async with asyncio.timeout(within):
            return SocketStream(*await asyncio.open_connection(host.strip("[]"), int(port)))
    except TimeoutError:
        raise NodeUnreachable(f"{endpoint}: no TCP connection within {within:g} s") from None
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        raise NodeUnreachable(f"{endpoint}: {'connection refused' if refused else error.strerror or error}") from None


class _BusyError(Exception):
    """The TLS handshake was not answered in time."""


def _is_on(way: tuple[Hop, ...], route: tuple[Hop, ...]) -> bool:
    return way == route[: len(way)]


def _busy(hop: Hop, rival: SharedSession | None) -> str:
    held = f", and this controller holds it by way of {' → '.join(h.name for h in rival.hops)}" if rival is not None else ""
    return f"relay {hop.name} ({hop.egress}): no TLS handshake within {DIAL_S:g} s; relays serve one session at a time{held}"


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not one that this controller accepts ({error.verify_message})"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
