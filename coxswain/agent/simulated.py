"""A data plane without packets: believable clients from a seed, cheap enough for thousands of nodes in one process.

Nothing runs on its own: what a peer is doing is worked out from the clock when somebody looks. A peer that is connected
has shaken hands at its connect time and every two minutes since; its counters grow at the rate of its session. One that is
another simulated host does what that host's inner links do (``sim_network``).
"""

from __future__ import annotations

import json
import math
import random
from collections import deque
from collections.abc import Sequence

from coxswain.agent.dataplane import (
    CLIENT_INTERFACE,
    DataPlaneFailed,
    Dump,
    InterfaceStatus,
    Journal,
    LinkConfig,
    LivePeer,
    PeerConfig,
    StoredPolicy,
)
from coxswain.agent.identity import AwgIdentity
from coxswain.agent.sim_links import Carried, LinkState, LinkTraffic, SimLinks
from coxswain.agent.sim_network import Sent, SimNetwork, understood
from coxswain.agent.sim_peer import REKEY_S, Behaviour, SimPeer, client_endpoint
from coxswain.agent.state import Files, MemoryFiles
from coxswain.clock import Clock
from coxswain.netpolicy import Policy, render, resolve
from coxswain.ports import PortRange

__all__ = ["REKEY_S", "Behaviour", "SimPeer", "SimulatedPlane", "SimulatedXray"]

CONF = "simulated-peers.json"
EGRESS = "eth0"


class SimulatedXray:
    """An engine that says it runs. ``failures``: the next calls of ``check`` or ``swap`` raise these texts."""

    def __init__(self) -> None:
        self.running = False
        self.trouble = ""
        self.document = b""
        self.failures: dict[str, list[str]] = {}

    async def check(self, document: bytes, port: int) -> None:  # noqa: ARG002 - it takes everything
        self._may_fail("check")

    async def swap(self, document: bytes, port: int) -> None:  # noqa: ARG002
        self.running = False
        self._may_fail("swap")
        self.running, self.trouble, self.document = True, "", document

    async def stop(self) -> None:
        self.running = False

    def _may_fail(self, method: str) -> None:
        waiting = self.failures.get(method)
        if waiting:
            self.trouble = waiting.pop(0)
            raise DataPlaneFailed(self.trouble)


class SimulatedPlane:
    """Implements ``DataPlane``.

    Args:
        clock: where the time comes from.
        seed: of the clients' lives.
        behaviour: None: peers stay idle until a test or a generator connects them.
        files: where peers are kept between processes; in memory they are not kept twice.
        record: keep the commands that a real plane would have run, in ``commands``.
        existing_agent: how links are remembered (``SimLinks``).

    Attributes:
        links: the inner links that are up, by interface.
        policy: the one in force; None: none since the host started.
        carries_ipv6: whether it says that it serves clients' IPv6; an existing agent cannot.
        maps_ports: whether it says that it maps the ports that it was told of; an existing agent cannot.
        policies: all that were put in force, with their transits, the last 32.
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
        existing_agent: bool = False,
    ) -> None:
        self.behaviour = behaviour
        self.xray = SimulatedXray()
        self._links = SimLinks(existing_agent=existing_agent)
        self.carries_ipv6 = self.maps_ports = not existing_agent
        self.policy: Policy | None = None
        self.policies: deque[Policy] = deque(maxlen=32)
        self.commands: deque[tuple[str, ...]] | None = deque(maxlen=1000) if record else None
        self.failures: dict[str, list[str]] = {}
        self.peers: dict[str, SimPeer] = {}
        self._network = SimNetwork()
        self._identity: AwgIdentity | None = None
        self._heard: dict[str, LinkTraffic] = {}  # what hosts that dial had sent and got when this one last looked
        self._clock = clock
        self._seed = seed
        self._files = files if files is not None else MemoryFiles()
        self._up = False
        self._conf = False
        self._changed = True
        self._next = 0.0
        self._load()

    # -- what DataPlane asks for

    @property
    def mapped_ports(self) -> PortRange | None:
        return self.policy.ports if self.maps_ports and self.policy is not None else None

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

    async def apply_policy(
        self,
        policy: Policy,
        previous: StoredPolicy | None,
        journal: Journal,  # noqa: ARG002 - nothing happens half way here
        *,
        restoring: bool = False,
    ) -> StoredPolicy:
        self._may_fail("apply_policy")
        self._links.check(policy, restoring=restoring)
        rules = render(policy)
        for argv in previous.down if previous is not None else ():
            self._run(*argv)
        for line in (*rules.pre_up, *rules.post_up):
            self._run(*resolve(line, CLIENT_INTERFACE, EGRESS))
        self._links.settle(self._carried())
        self.policy = policy
        self._links.settle(self._carried())
        self.policies.append(policy)
        return StoredPolicy(policy, tuple(resolve(line, CLIENT_INTERFACE, EGRESS) for line in rules.post_down))

    async def link_is_up(self, interface: str) -> bool:
        return self._links.looks_up(interface)

    async def configure_link(self, link: LinkConfig) -> None:
        self._may_fail("configure_link")
        self._links.configure(link, self._carried())

    async def remove_link(self, interface: str) -> None:
        self._may_fail("remove_link")
        self._links.remove(interface)

    async def heal(self, policy: StoredPolicy | None, journal: Journal) -> StoredPolicy | None:  # noqa: ARG002 - stays gone
        return None

    async def close(self) -> None:
        return None

    # -- what other hosts ask for

    def join(self, network: SimNetwork, identity: AwgIdentity) -> None:
        """From now on others of ``network`` can dial it."""
        self._network, self._identity = network, identity
        network.join(identity.public_key, self)

    def takes(self, dialler: str, link: LinkConfig) -> bool:
        """See ``sim_network.Host``."""
        peer = self.peers.get(dialler)
        return (
            self._up
            and peer is not None
            and peer.config.preshared_key == link.exit.preshared_key
            and self._identity is not None
            and understood(link.obfuscation, self._identity.obfuscation)
        )

    def sent_to(self, key: str) -> Sent:
        """See ``sim_network.Host``."""
        carried = self._carried()
        self._links.settle(carried)
        at_work = {interface for interface, peer in carried if self.peers[peer].connected}
        port, rx, tx = 0, 0, 0
        for interface, link in self._links.up.items():
            if link.exit.public_key == key:
                counted = self._links.counted(interface)
                rx, tx = rx + counted.rx_bytes, tx + counted.tx_bytes
                port = link.listen_port if interface in at_work else port
        return Sent(port, LinkTraffic(rx, tx))

    # -- what simulators and tests ask for

    def is_client(self, key: str) -> bool:
        """No: the key is another simulated host's."""
        return key not in self._network

    def reboot(self, *, links_up: bool = False) -> None:
        """Interfaces, links, rules and counters are gone; configured peers are not. ``links_up``: as ``SimLinks`` has it."""
        self._up = False
        self._links.reboot(links_up=links_up)
        self.policy = None
        for peer in self.peers.values():
            peer.recreated()
        self._changed = True

    def interface_down(self) -> None:
        """Somebody took awg0 away."""
        self._up = False

    def restarted(self) -> None:
        """The agent's process is another one; interfaces and rules stay, XRay ended with it."""
        self.xray.running = False
        self._links.restarted()

    @property
    def links(self) -> dict[str, LinkConfig]:
        """See the class."""
        return self._links.up

    def link_down(self, interface: str) -> None:
        """Somebody took an inner link away. Raises ``KeyError``."""
        self._links.settle(self._carried())
        self._links.take_away(interface)

    def link_state(self, interface: str) -> LinkState | None:
        """What an operator would see of a link on the host; None: there is none.

        Its counters grow with those of the clients that have a transit to it, from the moment that both are in force.
        """
        return self._links.state(interface, self._carried())

    def fail_next(self, method: str, text: str, times: int = 1) -> None:
        """The next calls of a method of ``DataPlane`` raise ``DataPlaneFailed`` with ``text``."""
        self.failures.setdefault(method, []).extend([text] * times)

    def connect(self, key: str, *, endpoint: str = "", rx_rate: float = 0.0, tx_rate: float = 0.0) -> LivePeer:
        """Opens a session of a configured peer, now. Raises ``KeyError``."""
        peer, now = self.peers[key], self._clock.now()
        if not endpoint and not peer.endpoint:
            endpoint = client_endpoint(random.Random(f"{self._seed}/{key}"))  # noqa: S311 - a seeded life
        peer.connect(now, endpoint, rx_rate, tx_rate)
        peer.by_hand = self._changed = True
        return peer.live(now)

    def leave(self, key: str, *, at_once: bool = False) -> LivePeer:
        """Ends a session (``SimPeer.leave``). Raises ``KeyError``."""
        peer, now = self.peers[key], self._clock.now()
        peer.leave(now, at_once=at_once)
        peer.by_hand = self._changed = True
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
        peer.by_hand = self._changed = True

    def looked(self) -> None:
        """The observer has just looked; dumps for ListPeers and GetStatus are no looks of its."""
        now = self._clock.now()
        self._changed = False
        self._next = min((peer.next_change(now) for peer in self.peers.values()), default=math.inf)
        if self._network.among(self.peers):
            self._next = now  # what happens on other hosts shows here without a word

    def next_change(self) -> float:
        """Epoch seconds from which on the observer can see anything new; in the past: now; infinity: it will not."""
        return 0.0 if self._changed else self._next

    # -- inside

    def _carried(self) -> Carried:
        now = self._clock.now()
        self._live(now)
        transits = self.policy.transits if self.policy is not None and self._up else ()
        taken = {interface for interface, link in self._links.up.items() if transits and self._is_taken(link)}
        links = {transit.device_cidr: transit.inner_interface for transit in transits if transit.inner_interface in taken}
        carried: dict[tuple[str, str], LinkTraffic] = {}
        for key, peer in self.peers.items() if links else ():
            interface = next((links[cidr] for cidr in peer.config.allowed_ips if cidr in links), "")
            if interface:
                rx, tx = peer.counters(now)
                carried[interface, key] = LinkTraffic(tx, rx)
        return carried

    def _is_taken(self, link: LinkConfig) -> bool:
        own = self._identity.public_key if self._identity is not None else ""
        return self._network.takes(link.exit.public_key, own, link)

    def _live(self, now: float) -> None:
        if self.behaviour is not None:
            for key, peer in self.peers.items():
                if key not in self._network:
                    peer.advance(now, self.behaviour, self._seed)
        if self._identity is not None:
            own = self._identity.public_key
            self._network.look(own, lambda: self._hear(now, own))

    def _hear(self, now: float, own: str) -> None:
        """Looks at what goes on in the links of the hosts that dial this one."""
        before, self._heard = self._heard, {}
        for key in self._network.among(self.peers):
            sent, peer = self._network.sent(key, own), self.peers[key]
            was, total = before.get(key, sent.traffic), sent.traffic
            self._heard[key] = total
            if not peer.by_hand:
                rx, tx = max(0, total.tx_bytes - was.tx_bytes), max(0, total.rx_bytes - was.rx_bytes)
                peer.carry(now, sent.port if self._up else 0, rx, tx)

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
