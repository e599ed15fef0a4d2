"""One simulated node: the real service behind a real mTLS port, with a simulated data plane."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import coxswain
from coxswain.agent.dataplane import LivePeer
from coxswain.agent.events import BUFFER, EventHub
from coxswain.agent.identity import load_or_create_awg, load_or_create_xray, new_csr
from coxswain.agent.knobs import Knobs
from coxswain.agent.observer import Observer
from coxswain.agent.server import AgentServer, TlsMaterial, static_credentials
from coxswain.agent.service import NodeService
from coxswain.agent.sim_network import SimNetwork
from coxswain.agent.simulated import Behaviour, SimulatedPlane
from coxswain.agent.state import XRAY_CONFIG, Files, MemoryFiles, State
from coxswain.clock import Clock
from coxswain.errors import NotFound, Refused

__all__ = ["SimNode"]


class SimNode:
    """One simulated node. ``start`` after ``stop`` or ``kill`` is an agent restart: files and interface are kept.

    Args:
        existing_agent: forgets what the existing agent forgets (node-contract.md 4.12 to 4.14): XRay and the registry of
            inner links at a restart; and it does not start with a policy whose links a reboot has taken (12.1).

        network: the hosts that it can dial and that can dial it; None: nobody.

    Attributes:
        identity: its AmneziaWG keys and obfuscation.
        port: 0 until first started, unless given; kept over restarts.
        plane: the data plane, with its own switches.
        knobs: switches of the RPCs, and the record of calls and pushes.
    """

    def __init__(
        self,
        index: int,
        key: ec.EllipticCurvePrivateKey,
        *,
        clock: Clock,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        behaviour: Behaviour | None = None,
        buffer: int = BUFFER,
        files: Files | None = None,
        record: bool = False,
        version: str = coxswain.__version__,
        existing_agent: bool = False,
        network: SimNetwork | None = None,
    ) -> None:
        self.index = index
        self.network = network if network is not None else SimNetwork()
        self.existing_agent = existing_agent
        self.host = host
        self.port = port
        self.version = version
        self.files = files if files is not None else MemoryFiles()
        self.knobs = Knobs(clock, record=record)
        self.plane = SimulatedPlane(
            clock,
            seed=seed * 1_000_003 + index,
            behaviour=behaviour,
            files=self.files,
            record=record,
            existing_agent=existing_agent,
        )
        self._seed = seed
        self._key = key
        self._clock = clock
        self._buffer = buffer
        self._tls: TlsMaterial | None = None
        self._server: AgentServer | None = None
        self._life = asyncio.Lock()
        self._past = [0, 0, 0, 0, 0]  # published, sent, dropped, connected, disconnected by earlier incarnations
        self._assemble()

    def _assemble(self) -> None:
        rng = random.Random(f"{self._seed}/{self.index}")  # noqa: S311 - a seeded identity, of a node that is none
        self.identity = load_or_create_awg(self.files, rng)
        self.plane.join(self.network, self.identity)
        self.hub = EventHub(self._clock, capacity=self._buffer, name=f"node {self.index}: ")
        self.observer = Observer(self.plane, self.hub, self._clock)
        self.service = NodeService(
            State(self.files),
            self.plane,
            self.observer,
            self.hub,
            self.identity,
            load_or_create_xray(self.files, rng),
            self._clock,
            version=self.version,
            hook=self.knobs,
            names_what_it_holds=not self.existing_agent,
        )

    # -- life

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        return self._server is not None

    def csr(self) -> bytes:
        """A PEM CSR, as ``cox-node gen-csr`` makes it."""
        return new_csr(self._key)

    @property
    def installed(self) -> bool:
        """Whether it has a certificate."""
        return self._tls is not None

    def install(self, chain: bytes, anchors: bytes, *, key: bytes | None = None) -> None:
        """Gives the node its certificate and its trust anchors (PEM), in force from the next start.

        ``key``: its key, if it is not the one that ``csr`` was made with.
        """
        pem = key or self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._tls = TlsMaterial(pem, chain, anchors)

    async def start(self) -> None:
        """Starts the agent; a running one stays as it is.

        Raises:
            Refused: no certificate, or the port is taken; or what an existing agent cannot start with.
        """
        async with self._life:
            if self._server is not None:
                return
            if self._tls is None:
                raise Refused(f"simulated node {self.index} has no certificate: call install() first")
            await self.service.restore()
            if self.existing_agent and self.service.troubles:
                raise Refused(f"simulated node {self.index} does not start: {self.service.troubles[0]}")
            server = AgentServer(self.service.handler(), static_credentials(self._tls))
            self.port = await server.start((self.address,))
            self._server = server
            await self.look()

    async def stop(self, grace: float = 1.0) -> None:
        """A clean stop: shutdown events, streams end OK (node-contract.md 3.6)."""
        async with self._life:
            if self._server is not None:
                server, self._server = self._server, None
                self.observer.close()
                await server.stop(grace)
                self._retire()

    async def kill(self) -> None:
        """A crash: connections break, calls in progress are lost, the port is closed."""
        async with self._life:
            if self._server is not None:
                server, self._server = self._server, None
                self.hub.cut_streams()
                await server.stop(None)
                self._retire()

    async def restart(self, *, forget_xray: bool = False) -> None:
        """A clean stop and a start. ``forget_xray``: as the existing agent does."""
        await self.stop()
        if forget_xray:
            self._forget_xray()
        await self.start()

    async def reboot(self, *, forget_xray: bool = False, links_up: bool = False) -> None:
        """Kills the host and starts it: interfaces, links, rules and counters are gone (node-contract.md 4.14).

        ``forget_xray``: as the existing agent does. Revisions of inner links stay, their interfaces do not, and nothing
        brings them back but the controller; or, with ``links_up``, the unit's ExecStartPre (12.1). Raises as ``start`` does.
        """
        await self.power_off(links_up=links_up)
        if forget_xray:
            self._forget_xray()
        await self.start()

    async def power_off(self, *, links_up: bool = False) -> None:
        """The host is gone, and what went through it stands still; ``start`` boots it. An agent that is merely killed
        leaves its host at work. ``links_up``: as ``reboot``.
        """
        await self.kill()
        self.plane.reboot(links_up=links_up)

    async def set_up_anew(self) -> None:
        """Another host in its place: other keys, other obfuscation, nothing configured."""
        await self.kill()
        self.network.leave(self.identity.public_key)
        self._seed += 1_000_000
        self.files = MemoryFiles()
        self.plane = SimulatedPlane(
            self._clock,
            seed=self._seed * 1_000_003 + self.index,
            behaviour=self.plane.behaviour,
            files=self.files,
            record=self.plane.commands is not None,
            existing_agent=self.existing_agent,
        )
        self._assemble()
        await self.start()

    async def look(self) -> None:
        """The observer looks once, now."""
        await self.observer.poll()
        self.plane.looked()

    def cut_streams(self) -> int:
        """Breaks the event streams only; returns how many there were."""
        return self.hub.cut_streams()

    def _forget_xray(self) -> None:
        self.files.delete(XRAY_CONFIG)
        self._assemble()

    def _retire(self) -> None:
        for position, value in enumerate(self._totals()):
            self._past[position] = value
        self.plane.restarted()
        if self.existing_agent:
            self.files.delete(XRAY_CONFIG)
        self._assemble()

    # -- clients

    @property
    def peers(self) -> list[str]:
        """Public keys of the configured peers, in order."""
        return list(self.plane.peers)

    @property
    def clients(self) -> list[str]:
        """Those of them that are no other simulated node's."""
        return [key for key in self.plane.peers if self.plane.is_client(key)]

    @property
    def sessions(self) -> set[str]:
        """Public keys of the peers that are connected in truth."""
        return {key for key, peer in self.plane.peers.items() if peer.connected}

    def connect(
        self,
        peers: int | Sequence[str] = 1,
        *,
        rx_rate: float = 1_000.0,
        tx_rate: float = 10_000.0,
        handshakes: bool = True,
    ) -> list[str]:
        """Opens sessions and tells subscribers at once; returns the keys.

        Args:
            peers: keys, or how many of the configured clients that are not connected (fewer if there are fewer).
            rx_rate: bytes per second from the client.
            tx_rate: bytes per second to the client.
            handshakes: False: no HANDSHAKE_UP events.

        Raises:
            NotFound: a key is not configured.
        """
        keys = self._choose(peers, connected=False)
        for key in keys:
            self._feed(self.plane.connect(key, rx_rate=rx_rate, tx_rate=tx_rate), handshakes=handshakes)
        return keys

    def disconnect(self, peers: int | Sequence[str] = 1, *, handshakes: bool = True) -> list[str]:
        """Ends sessions and tells subscribers at once; returns the keys. Raises ``NotFound``."""
        keys = self._choose(peers, connected=True)
        for key in keys:
            self._feed(self.plane.leave(key, at_once=True), handshakes=handshakes)
        return keys

    def roam(self, key: str, endpoint: str) -> None:
        """A connected client shows up from elsewhere. Raises ``NotFound``."""
        self._choose([key], connected=True)
        self.plane.peers[key].endpoint = endpoint
        self._feed(self.plane.peers[key].live(self._clock.now()))

    def _choose(self, peers: int | Sequence[str], *, connected: bool) -> list[str]:
        if isinstance(peers, int):
            fitting = (key for key in self.clients if self.plane.peers[key].connected == connected)
            return list(itertools.islice(fitting, peers))
        for key in peers:
            if key not in self.plane.peers:
                raise NotFound(f"node {self.index} has no peer {key[:8]}…")
        return list(peers)

    def _feed(self, live: LivePeer, *, handshakes: bool = True) -> None:
        if self.running:
            self.observer.feed(live, handshakes=handshakes)

    # -- figures

    def stats(self) -> dict[str, int]:
        """Totals since the node was made, over all its incarnations."""
        names = ("published", "sent", "dropped", "connected_total", "disconnected_total")
        totals = dict(zip(names, self._totals(), strict=True))
        return totals | {
            "sessions": len(self.sessions),
            "peers": len(self.plane.peers),
            "applied_revision": self.service.applied_revision,
            "subscribers": self.hub.subscribers,
        }

    def _totals(self) -> list[int]:
        present = (
            self.hub.published,
            self.hub.sent,
            self.hub.dropped,
            self.observer.connected_total,
            self.observer.disconnected_total,
        )
        return [past + now for past, now in zip(self._past, present, strict=True)]
