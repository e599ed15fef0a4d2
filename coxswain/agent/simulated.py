"""A data plane without packets: believable clients from a seed, cheap enough for thousands of nodes in one process.

Nothing runs on its own: what a peer is doing is worked out from the clock when somebody looks. A peer that is connected
has shaken hands at its connect time and every two minutes since; its counters grow at the rate of its session.
"""

from __future__ import annotations

import json
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from coxswain.agent.dataplane import (
    CLIENT_INTERFACE,
    DataPlaneFailed,
    Dump,
    InterfaceStatus,
    LinkConfig,
    LivePeer,
    PeerConfig,
    StoredPolicy,
)
from coxswain.agent.observer import FRESH_S
from coxswain.agent.state import Files, MemoryFiles
from coxswain.clock import Clock
from coxswain.netpolicy import Policy, render, resolve

__all__ = ["REKEY_S", "Behaviour", "SimPeer", "SimulatedPlane"]

REKEY_S = 120
"""Seconds between handshakes of a client that has traffic (WireGuard's REKEY_AFTER_TIME)."""

CONF = "simulated-peers.json"
EGRESS = "eth0"


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
        "config", "connected", "endpoint",
    )  # fmt: skip

    def __init__(self, config: PeerConfig) -> None:
        self.config = config
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


class SimulatedPlane:
    """Implements ``DataPlane``.

    Args:
        clock: where the time comes from.
        seed: of the clients' lives.
        behaviour: None: peers stay idle until a test or a generator connects them.
        files: where peers are kept between processes; in memory they are not kept twice.
        record: keep the commands that a real plane would have run, in ``commands``.
    """

    name = "simulated"
    has_xray = True

    def __init__(
        self,
        clock: Clock,
        *,
        seed: int = 0,
        behaviour: Behaviour | None = None,
        files: Files | None = None,
        record: bool = False,
    ) -> None:
        self.behaviour = behaviour
        self.links: dict[str, LinkConfig] = {}
        self.policy: Policy | None = None
        self.commands: deque[tuple[str, ...]] | None = deque(maxlen=1000) if record else None
        self.failures: dict[str, list[str]] = {}
        self.peers: dict[str, SimPeer] = {}
        self._clock = clock
        self._seed = seed
        self._files = files if files is not None else MemoryFiles()
        self._up = False
        self._conf = False
        self._changed = True
        self._next = 0.0
        self._load()

    # -- what DataPlane asks for

    async def restore_links(self) -> Sequence[str]:
        return ()

    async def up(self) -> None:
        self._may_fail("up")
        if self._conf:
            self._up = True
            self._run("awg-quick", "up", CLIENT_INTERFACE)

    async def status(self) -> InterfaceStatus:
        return InterfaceStatus(self._up)

    async def dump(self) -> Dump:
        self._may_fail("dump")
        if not self._up:
            raise DataPlaneFailed(f"{CLIENT_INTERFACE} is not up")
        now = self._clock.now()
        self._live(now)
        return {key: peer.live(now) for key, peer in self.peers.items()}

    async def configured(self) -> tuple[PeerConfig, ...]:
        self._may_fail("configured")
        return tuple(peer.config for peer in self.peers.values())

    async def replace_peers(self, peers: Sequence[PeerConfig]) -> None:
        self._may_fail("replace_peers")
        before = self.peers
        self.peers = {}
        for config in peers:
            self.peers[config.public_key] = self._peer(before.get(config.public_key), config)
        self._conf = self._up = True
        self._run("awg", "syncconf", CLIENT_INTERFACE, "/dev/stdin")
        self._save()

    async def upsert_peer(self, peer: PeerConfig) -> None:
        self._may_fail("upsert_peer")
        self.peers[peer.public_key] = self._peer(self.peers.get(peer.public_key), peer)
        self._conf = True
        self._save()
        self._run("awg", "set", CLIENT_INTERFACE, "peer", peer.public_key, "allowed-ips", ",".join(peer.allowed_ips))
        self._need_interface()

    async def remove_peer(self, public_key: str) -> None:
        self._may_fail("remove_peer")
        self.peers.pop(public_key, None)
        self._save()
        self._run("awg", "set", CLIENT_INTERFACE, "peer", public_key, "remove")
        self._need_interface()

    async def apply_policy(self, policy: Policy, previous: StoredPolicy | None) -> StoredPolicy:
        self._may_fail("apply_policy")
        rules = render(policy)
        for argv in previous.down if previous is not None else ():
            self._run(*argv)
        for line in (*rules.pre_up, *rules.post_up):
            self._run(*resolve(line, CLIENT_INTERFACE, EGRESS))
        self.policy = policy
        return StoredPolicy(policy, tuple(resolve(line, CLIENT_INTERFACE, EGRESS) for line in rules.post_down))

    async def configure_link(self, link: LinkConfig) -> None:
        self._may_fail("configure_link")
        self.links[link.interface] = link

    async def remove_link(self, interface: str) -> None:
        self._may_fail("remove_link")
        self.links.pop(interface, None)

    async def close(self) -> None:
        return None

    # -- what simulators and tests ask for

    def reboot(self) -> None:
        """Interfaces, links, rules and counters are gone; configured peers are not."""
        self._up = False
        self.links.clear()
        self.policy = None
        for peer in self.peers.values():
            peer.recreated()
        self._changed = True

    def interface_down(self) -> None:
        """Somebody took awg0 away."""
        self._up = False

    def fail_next(self, method: str, text: str, times: int = 1) -> None:
        """The next calls of a method of ``DataPlane`` raise ``DataPlaneFailed`` with ``text``."""
        self.failures.setdefault(method, []).extend([text] * times)

    def connect(self, key: str, *, endpoint: str = "", rx_rate: float = 0.0, tx_rate: float = 0.0) -> LivePeer:
        """Opens a session of a configured peer, now. Raises ``KeyError``."""
        peer, now = self.peers[key], self._clock.now()
        if not endpoint and not peer.endpoint:
            endpoint = client_endpoint(random.Random(f"{self._seed}/{key}"))  # noqa: S311 - a seeded life
        peer.connect(now, endpoint, rx_rate, tx_rate)
        self._changed = True
        return peer.live(now)

    def leave(self, key: str, *, at_once: bool = False) -> LivePeer:
        """Ends a session (``SimPeer.leave``). Raises ``KeyError``."""
        peer, now = self.peers[key], self._clock.now()
        peer.leave(now, at_once=at_once)
        self._changed = True
        return peer.live(now)

    def set_live(
        self,
        key: str,
        *,
        handshake: int | None = None,
        endpoint: str | None = None,
        rx: int | None = None,
        tx: int | None = None,
    ) -> None:
        """Puts given values in a peer's line of the dump; None keeps the present one. Raises ``KeyError``."""
        peer = self.peers[key]
        peer.set_live(self._clock.now(), handshake=handshake, rx=rx, tx=tx)
        if endpoint is not None:
            peer.endpoint = endpoint
        self._changed = True

    def looked(self) -> None:
        """The observer has just looked; dumps for ListPeers and GetStatus are no looks of its."""
        now = self._clock.now()
        self._changed = False
        self._next = min((peer.next_change(now) for peer in self.peers.values()), default=math.inf)

    def next_change(self) -> float:
        """Epoch seconds from which on the observer can see anything new; in the past: now; infinity: it will not."""
        return 0.0 if self._changed else self._next

    # -- inside

    def _live(self, now: float) -> None:
        if self.behaviour is not None:
            for peer in self.peers.values():
                peer.advance(now, self.behaviour, self._seed)

    def _peer(self, known: SimPeer | None, config: PeerConfig) -> SimPeer:
        self._changed = True
        if known is None:
            return SimPeer(config)
        known.config = config
        return known

    def _need_interface(self) -> None:
        self._changed = True
        if not self._up:
            raise DataPlaneFailed(f"Unable to modify interface: {CLIENT_INTERFACE} is not up")

    def _may_fail(self, method: str) -> None:
        waiting = self.failures.get(method)
        if waiting:
            raise DataPlaneFailed(waiting.pop(0))

    def _run(self, *argv: str) -> None:
        if self.commands is not None:
            self.commands.append(argv)

    def _save(self) -> None:
        if self._files.blocking:
            content = [
                {"public_key": c.public_key, "allowed_ips": c.allowed_ips, "preshared_key": c.preshared_key,
                 "endpoint": c.endpoint}
                for c in (peer.config for peer in self.peers.values())
            ]  # fmt: skip
            self._files.write(CONF, json.dumps(content).encode(), 0o600)

    def _load(self) -> None:
        content = self._files.read(CONF)
        if content is not None:
            self._conf = True
            for c in json.loads(content):
                config = PeerConfig(c["public_key"], tuple(c["allowed_ips"]), c["preshared_key"], c["endpoint"])
                self.peers[config.public_key] = SimPeer(config)
