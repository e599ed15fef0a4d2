"""One client of a simulated node: a life drawn from a seed, worked out from the clock when somebody looks."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from coxswain.agent.dataplane import LivePeer, PeerConfig
from coxswain.agent.observer import FRESH_S

__all__ = ["REKEY_S", "Behaviour", "SimPeer", "client_endpoint"]

REKEY_S = 120
"""Seconds between handshakes of a client that has traffic (WireGuard's REKEY_AFTER_TIME)."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How lively clients live. Times are means of exponential distributions, in seconds.

    Attributes:
        share: of the peers, how many ever connect.
        idle_s: between two sessions.
        session_s: of one session.
        roam: chance that a session changes its endpoint once.
        bytes_per_s: mean rate towards the client; the other direction has a tenth.
    """

    share: float = 0.8
    idle_s: float = 240.0
    session_s: float = 600.0
    roam: float = 0.15
    bytes_per_s: float = 60_000.0


class SimPeer:
    """One peer's live state; times are epoch seconds."""

    __slots__ = (
        "_base_rx", "_base_tx", "_handshake", "_rx_rate", "_since", "_step", "_tx_rate", "_until",
        "by_hand", "config", "connected", "endpoint",
    )  # fmt: skip

    def __init__(self, config: PeerConfig) -> None:
        self.config = config
        self.by_hand = False  # somebody said how it is: a host that dials is then left as that says
        self.connected = False
        self.endpoint = config.endpoint
        self._handshake = 0  # the last one, or the first of the running session
        self._since = 0.0  # start of what the bases do not count
        self._base_rx = self._base_tx = 0
        self._rx_rate = self._tx_rate = 0.0
        self._step = 0
        self._until = math.nan  # next turn of a lively peer; nan: not drawn yet

    def live(self, now: float) -> LivePeer:
        rx, tx = self.counters(now)
        return LivePeer(self.config.public_key, self.endpoint, self.handshake(now), rx, tx)

    def handshake(self, now: float) -> int:
        if not self.connected or now < self._handshake:
            return self._handshake
        return self._handshake + int(now - self._handshake) // REKEY_S * REKEY_S

    def counters(self, now: float) -> tuple[int, int]:
        if not self.connected:
            return self._base_rx, self._base_tx
        passed = max(0.0, now - self._since)
        return self._base_rx + int(passed * self._rx_rate), self._base_tx + int(passed * self._tx_rate)

    def connect(self, now: float, endpoint: str, rx_rate: float = 0.0, tx_rate: float = 0.0) -> None:
        """Opens a session with a handshake now, or shakes hands once more."""
        self._settle(now)
        self.connected = True
        self.endpoint = endpoint or self.endpoint
        # Handshakes have whole seconds, and a new one is always later than the one before.
        self._handshake = max(int(now), self._handshake + 1)
        self._rx_rate, self._tx_rate = rx_rate, tx_rate

    def leave(self, now: float, *, at_once: bool = False) -> None:
        """The client goes silent. ``at_once``: its handshake is dated back, so that the next look ends the session."""
        self._settle(now)
        self.connected = False
        if at_once and self._handshake:
            self._handshake = min(self._handshake, int(now) - FRESH_S - 1)

    def set_live(self, now: float, *, handshake: int | None, rx: int | None, tx: int | None) -> None:
        """Puts given values in place; from then on they stand still."""
        self._settle(now)
        self.connected = False
        self._handshake = self._handshake if handshake is None else handshake
        self._base_rx = self._base_rx if rx is None else rx
        self._base_tx = self._base_tx if tx is None else tx

    def carry(self, now: float, port: int, rx_bytes: int, tx_bytes: int) -> None:
        """It is a host that dials: what came from it and went to it since the last look, and from which UDP port it sends
        now; 0: from none.
        """
        if port and not self.connected:
            host = client_endpoint(random.Random(self.config.public_key)).partition(":")[0]  # noqa: S311 - a host that is none
            self.connect(now, f"{host}:{port}")
        elif not port and self.connected:
            self.leave(now)
        self._base_rx += rx_bytes
        self._base_tx += tx_bytes

    def recreated(self) -> None:
        """The interface was made anew: counters and handshakes are gone."""
        self.__init__(self.config)  # type: ignore[misc]

    def next_change(self, now: float) -> float:
        """When a look will next see something new of this peer, apart from counters."""
        lively = self._until if self._until == self._until else math.inf
        if self.connected:
            return min(lively, self.handshake(now) + REKEY_S)
        ages_out = self._handshake + FRESH_S + 1
        return min(lively, ages_out if self._handshake and ages_out > now else math.inf)

    def advance(self, now: float, behaviour: Behaviour, seed: int) -> None:
        """Lives up to ``now``: draws and passes the turns of the past."""
        if self._until != self._until:
            rng = self._rng(seed)
            chosen = rng.random() < behaviour.share
            # Somewhere in the middle of its first idle time or session, so that a fleet does not start in step.
            self._until = now + rng.random() * behaviour.idle_s / 2 if chosen else math.inf
        while self._until <= now:
            self._turn(self._until, behaviour, self._rng(seed))

    def _turn(self, at: float, behaviour: Behaviour, rng: random.Random) -> None:
        self._step += 1
        if not self.connected:
            rate = rng.expovariate(1 / behaviour.bytes_per_s)
            self.connect(at, client_endpoint(rng), rate / 10, rate)
            length = 30 + rng.expovariate(1 / behaviour.session_s)
            self._until = at + (length * rng.random() if rng.random() < behaviour.roam else length)
        elif rng.random() < behaviour.roam:
            self._settle(at)
            self.endpoint = client_endpoint(rng)
            self._until = at + 30 + rng.expovariate(1 / behaviour.session_s)
        else:
            self._handshake = self.handshake(at)
            self.leave(at)
            self._until = at + FRESH_S + rng.expovariate(1 / behaviour.idle_s)

    def _rng(self, seed: int) -> random.Random:
        # A generator per draw: one per peer would cost 2.5 KB each.
        return random.Random(f"{seed}/{self.config.public_key}/{self._step}")  # noqa: S311 - a seeded life

    def _settle(self, now: float) -> None:
        if self.connected:
            self._handshake = self.handshake(now)
        self._base_rx, self._base_tx = self.counters(now)
        self._since = now


def client_endpoint(rng: random.Random) -> str:
    """A public-looking source address (RFC 2544 and RFC 5737 ranges, which belong to nobody)."""
    return f"198.{rng.choice((18, 19))}.{rng.randint(0, 255)}.{rng.randint(1, 254)}:{rng.randint(1024, 65535)}"
