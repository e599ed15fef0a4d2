"""Telling relays where they may connect: on the controller's own session with each, before it asks them to.

A relay of ours says by ALPN that it takes a policy (``coxswain.relay.policy``), and holds to it; an existing one is not
asked, and connects anywhere. What a relay has acknowledged is remembered; so a policy is sent once per session, and when
the inventory has changed. A target that is not in it, because the inventory is ahead or a route is for one connection
alone, is added before it is asked for: the link to a new node never waits for a clock.

Everything here is on the I/O loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from coxswain.clock import Clock, SystemClock
from coxswain.control_path.model import Hop
from coxswain.control_path.targets import Allowance, Allowances
from coxswain.inventory import host_of
from coxswain.relay.byte_stream import ByteStream
from coxswain.relay.policy import ANNOUNCE, SAYS_ITSELF, TargetPolicy, sign_policy
from coxswain.relay.yamux import SessionClosed

__all__ = ["Announcer", "Signer"]

_ANSWER_S = 10.0
_AFTER_FAILURE_S = 30.0
_MOST_ANSWER = 300

_log = logging.getLogger(__name__)

Open = Callable[[], Awaitable[ByteStream]]


@dataclass(frozen=True)
class Signer:
    """The certificate that the controller shows to relays, and its key. PEM."""

    leaf_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass
class _Told:
    """What one relay knows."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    allowance: Allowance | None = None
    more: set[str] = field(default_factory=set)  # asked for, and not of the inventory; until that changes
    acknowledged: frozenset[str] | None = None
    takes_none: bool = False
    silent_until: float = 0.0  # by the monotonic clock
    refusal: str = ""
    serial: int = 0


class Announcer:
    """Knows what each relay was told."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.allowances = Allowances()
        self._clock = clock or SystemClock()
        self._signer: Signer | None = None
        self._told: dict[str, _Told] = {}

    def use(self, signer: Signer) -> None:
        """From now on policies are signed by this. Any thread."""
        self._signer = signer

    def reset(self) -> None:
        """A new loop."""
        self._told = {}

    def forget(self, hop: Hop) -> None:
        """It may have been started anew, or be another program: it is told again."""
        told = self._told.get(hop.relay_id)
        if told is not None:
            told.acknowledged, told.takes_none, told.silent_until = None, False, 0.0

    def is_told(self, hop: Hop, target: str | None) -> bool:
        """Whether nothing has to be said before this hop is asked for ``target`` (None: for what it was told already)."""
        allowance = self.allowances.of(hop.relay_id)
        if allowance is None or self._signer is None:
            return True
        told = self._of(hop, allowance)
        if told.takes_none or self._clock.monotonic() < told.silent_until:
            return True
        wanted = allowance.targets | told.more
        return told.acknowledged == wanted and (target is None or target in wanted)

    def takes_none(self, hop: Hop) -> None:
        """It is an existing relay, or one of ours of before."""
        self._told.setdefault(hop.relay_id, _Told()).takes_none = True

    def failed(self, hop: Hop) -> None:
        """It could not be told; for a while nobody waits for that again."""
        told = self._told.get(hop.relay_id)
        if told is not None:
            self._leave_alone(told)

    async def tell(self, hop: Hop, open_stream: Open, target: str | None) -> None:
        """Returns when the relay holds to a policy with ``target`` in it, or takes none. Raises ``SessionClosed``."""
        if self.is_told(hop, target):
            return
        async with self._told[hop.relay_id].lock:
            allowance, signer = self.allowances.of(hop.relay_id), self._signer
            if allowance is None or signer is None or self.is_told(hop, target):
                return
            told = self._of(hop, allowance)
            if target is not None and target not in allowance.targets:
                told.more.add(target)
            wanted = frozenset(allowance.targets | told.more)
            try:
                answer = await self._say(signer, hop, told, open_stream, wanted)
                if answer.startswith("old "):  # by a clock that was ahead of ours
                    told.serial = int(answer.removeprefix("old "))
                    answer = await self._say(signer, hop, told, open_stream, wanted)
            except SessionClosed:
                raise
            except (OSError, ValueError):  # the session goes on, and with it all that it carries
                self._leave_alone(told)
                _log.warning("relay %s did not say whether it takes where it may connect", hop.name)
                return
            if answer == "ok":
                told.acknowledged, told.refusal = wanted, ""
                return
            told.takes_none = answer in ("", SAYS_ITSELF)
            self._leave_alone(told)  # its disk may be full, or its clock wrong, and not for ever
            if answer != told.refusal:
                _log.warning("relay %s does not take where it may connect: %s", hop.name, answer.removeprefix("no "))
            told.refusal = answer

    def _of(self, hop: Hop, allowance: Allowance) -> _Told:
        told = self._told.setdefault(hop.relay_id, _Told())
        if told.allowance != allowance:
            if told.allowance is not None and told.allowance.program != allowance.program:
                told.takes_none = False
            told.allowance = allowance
            told.more.clear()
        return told

    async def _say(self, signer: Signer, hop: Hop, told: _Told, open_stream: Open, targets: frozenset[str]) -> str:
        """The answer without its end; empty: none, as of an existing relay."""
        told.serial = max(told.serial + 1, int(self._clock.now() * 1000))
        policy = TargetPolicy(host_of(hop.egress), told.serial, tuple(sorted(targets)))
        document = sign_policy(policy, signer.leaf_pem, signer.key_pem)
        async with asyncio.timeout(_ANSWER_S):
            stream = await open_stream()
            try:
                return await _exchange(stream, document)
            finally:
                stream.close()

    def _leave_alone(self, told: _Told) -> None:
        told.silent_until = self._clock.monotonic() + _AFTER_FAILURE_S


async def _exchange(stream: ByteStream, document: bytes) -> str:
    """Nothing but a line is sent to who does not ask for more. Raises ``OSError``."""
    await stream.write(f"{ANNOUNCE}{len(document)}\n".encode())
    answer = await _line(stream)
    if answer == "go":
        await stream.write(document)
        answer = await _line(stream)
        if not answer:
            raise ConnectionResetError("the relay took a target policy and did not answer")
    return answer


async def _line(stream: ByteStream) -> str:
    """Without its end; empty: the other side ended."""
    answer = bytearray()
    while not answer.endswith(b"\n") and len(answer) <= _MOST_ANSWER:
        part = await stream.read(_MOST_ANSWER)
        if not part:
            break
        answer += part
    return answer.partition(b"\n")[0].decode("utf-8", "replace")
