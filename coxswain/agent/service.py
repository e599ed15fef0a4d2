"""``pharos.node.v1.NodeControl``: the eleven RPCs with the truth values, codes and quirks of node-contract.md 4, 9.1.

Runs on the agent's event loop. Reading calls never wait for a change in progress; changes run one at a time and to
their end whatever becomes of their RPC (``writer.py``). Status texts are diagnostics and hold no key material.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from coxswain.agent import requests as convert
from coxswain.agent.dataplane import DataPlane, DataPlaneFailed, Dump, StoredPolicy
from coxswain.agent.events import EventHub
from coxswain.agent.identity import AwgIdentity, XrayIdentity
from coxswain.agent.observer import Observer
from coxswain.agent.redact import scrub
from coxswain.agent.rpc import Door, Hook, RpcRefused, reads, verdict
from coxswain.agent.state import State
from coxswain.agent.status import awg_status, xray_status
from coxswain.agent.writer import Writer
from coxswain.agent.xray import Stale, XrayInbound
from coxswain.clock import Clock
from coxswain.errors import InvalidInput, Refused
from coxswain.fingerprints import of_policy
from coxswain.netpolicy import Policy
from coxswain.wire import validate
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

__all__ = ["NodeService"]

AWG = pb.PROTOCOL_AMNEZIAWG
XRAY = pb.PROTOCOL_XRAY_REALITY

_NONE = Policy()

_log = logging.getLogger(__name__)
T = TypeVar("T")
M = TypeVar("M", bound=Message)


class NodeService:
    """One node's service. Give ``handler`` to a ``grpc.aio`` server.

    Args:
        allowed_clients: common names of client certificates that may call; empty: every certificate that TLS let in.
        hook: see ``Hook``.
        names_what_it_holds: False: no fingerprints in the status, as of an existing agent.
    """

    def __init__(  # noqa: PLR0917 - the parts of one node, assembled in one place (node.py)
        self,
        state: State,
        plane: DataPlane,
        observer: Observer,
        hub: EventHub,
        awg: AwgIdentity,
        xray: XrayIdentity,
        clock: Clock,
        *,
        version: str,
        allowed_clients: frozenset[str] = frozenset(),
        hook: Hook | None = None,
        names_what_it_holds: bool = True,
    ) -> None:
        self._state = state
        self._plane = plane
        self._observer = observer
        self._awg = awg
        self._xray_identity = xray
        self._clock = clock
        self._version = version
        self._started = clock.monotonic()
        self._writer = Writer()
        self._complaints: dict[str, str] = {}
        self._names_what_it_holds = names_what_it_holds
        self._named: tuple[Policy, str] | None = None
        self._policy = self._readable("policy", state.policy)
        self.applied_revision = state.awg_revision()
        remembered = self._readable("xray", state.xray)
        self.xray = XrayInbound(state, self._save, plane.xray, xray, remembered)
        self.door = Door(
            {
                "GetStatus": reads(pb.GetStatusRequest, self.get_status),
                "GetMetrics": reads(pb.GetMetricsRequest, self.get_metrics),
                "PushConfig": reads(pb.PushConfigRequest, self.push_config),
                "AddPeer": reads(pb.AddPeerRequest, self.add_peer),
                "RemovePeer": reads(pb.RemovePeerRequest, self.remove_peer),
                "ListPeers": reads(pb.ListPeersRequest, self.list_peers),
                "RestartService": reads(pb.RestartServiceRequest, self.restart_service),
                "SetNetworkConfig": reads(pb.SetNetworkConfigRequest, self.set_network_config),
                "ConfigureInnerLink": reads(pb.ConfigureInnerLinkRequest, self.configure_inner_link),
                "RemoveInnerLink": reads(pb.RemoveInnerLinkRequest, self.remove_inner_link),
            },
            hub,
            allowed_clients,
            hook,
        )

    # -- start and stop

    async def restore(self) -> None:
        """The start sequence between loading and serving (node-contract.md 3.5, bettered by 9.2).

        Inner links first, because transits need them; then the policy; then awg0. What fails is told in the status.
        """
        await self._writer.run(self._restore)

    async def _restore(self) -> None:
        for about, what, step in (
            ("links", "inner links not restored", self._restore_links),
            ("policy", "network policy not applied", self._restore_policy),
            ("up", "awg0 not restored", self._plane.up),
        ):
            try:
                await step()
            except (DataPlaneFailed, InvalidInput, OSError) as error:
                self._complain(about, f"{what}: {error}")
            except Exception as error:  # nothing keeps the port shut through which it could be mended
                _log.exception("%s: a defect of the agent", what)
                self._complain(about, f"{what}: a defect of the agent: {type(error).__name__}")
        if self._plane.has_xray:
            with suppress(DataPlaneFailed):  # the status tells
                await self.xray.restart()

    async def _restore_links(self) -> None:
        for position, sentence in enumerate(await self._plane.restore_links()):
            self._complain(f"link {position}", sentence)

    async def _restore_policy(self) -> None:
        if self._policy is not None:
            policy = convert.checked_policy(self._policy.policy)  # another agent may have stored it unchecked
            stored = await self._plane.apply_policy(policy, self._policy, self._write_policy, restoring=True)
            await self._keep_policy(stored)

    async def heal(self) -> None:
        """Brings back what was configured and is not there any more; what cannot be is told in the status."""
        if not self._writer.busy:
            await self._writer.run(self._heal)

    async def _heal(self) -> None:
        try:
            stored = await self._plane.heal(self._usable_policy(), self._write_policy)
            if stored is not None:
                await self._keep_policy(stored)
                self._complaints.pop("policy", None)
        except (DataPlaneFailed, OSError) as error:
            self._complain("heal", f"not mended: {error}")
        else:
            self._complaints.pop("heal", None)

    def _usable_policy(self) -> StoredPolicy | None:
        """Another agent may have stored what none can apply; that was told at the start."""
        try:
            return self._policy if self._policy is not None and convert.checked_policy(self._policy.policy) else None
        except InvalidInput:
            return None

    async def _keep_policy(self, stored: StoredPolicy) -> None:
        await self._write_policy(stored)
        self._policy = stored

    async def _write_policy(self, stored: StoredPolicy) -> None:
        await self._save(lambda: self._state.set_policy(stored))

    @property
    def troubles(self) -> tuple[str, ...]:
        """What failed and is not mended yet, a sentence each; the status tells the same."""
        return tuple(self._complaints.values())

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109 - the wait ends, the changes do not
        """Waits up to ``timeout`` seconds for changes still running; returns whether all ended."""
        return await self._writer.drain(timeout)

    # -- reading

    async def get_status(self, _: pb.GetStatusRequest) -> pb.GetStatusResponse:
        """Never fails (node-contract.md 4.2)."""
        mapped = self._plane.mapped_ports
        return pb.GetStatusResponse(
            agent_version=self._version,
            uptime_seconds=int(self._clock.monotonic() - self._started),
            services=[
                await awg_status(self._plane, self._clock.now(), self.troubles),
                xray_status(self.xray if self._plane.has_xray else None),
            ],
            amneziawg=pb.AmneziaWGInfo(
                public_key=self._awg.public_key,
                obfuscation=convert.obfuscation_message(self._awg.obfuscation),
            ),
            xray=pb.XRayRealityInfo(public_key=self._xray_identity.public_key),
            applied_revision=self.applied_revision,
            tunnel_ipv6=self._plane.carries_ipv6,
            endpoint_port_min=mapped.low if mapped is not None else 0,
            endpoint_port_max=mapped.high if mapped is not None else 0,
            network_fingerprint=self._policy_name if self._names_what_it_holds else "",
            xray_fingerprint=self.xray.fingerprint if self._names_what_it_holds and self._plane.has_xray else "",
        )

    @property
    def _policy_name(self) -> str:
        """Of the policy that is kept in force; of one that does nothing, where there is none."""
        held = self._policy.policy if self._policy is not None else _NONE
        if self._named is None or self._named[0] is not held:  # asked for with each status
            self._named = (held, of_policy(held))
        return self._named[1]

    async def list_peers(self, request: pb.ListPeersRequest) -> pb.ListPeersResponse:
        """0 means AmneziaWG only (node-contract.md 4.9)."""
        if request.protocol == XRAY and self._plane.has_xray:
            return pb.ListPeersResponse(peers=[convert.xray_peer_state(client) for client in self.xray.clients])
        if request.protocol not in (pb.PROTOCOL_UNSPECIFIED, AWG):
            raise self._unimplemented(request.protocol)
        return pb.ListPeersResponse(peers=await self._peers())

    async def get_metrics(self, _: pb.GetMetricsRequest) -> pb.GetMetricsResponse:
        peers = await self._peers()
        return pb.GetMetricsResponse(
            peers=peers,
            total_rx_bytes=sum(peer.rx_bytes for peer in peers),
            total_tx_bytes=sum(peer.tx_bytes for peer in peers),
            handshakes_total=self._observer.handshakes_total,
            errors_total=self._observer.errors_total,
        )

    async def _peers(self) -> list[pb.PeerState]:
        configured = await self._plane.configured()
        dump: Dump = {}
        with suppress(DataPlaneFailed):  # configured peers are told even if the live ones cannot be
            dump = await self._plane.dump()
        return [convert.peer_state(config, dump) for config in configured]

    # -- changing

    async def push_config(self, request: pb.PushConfigRequest) -> pb.PushConfigResponse:
        if request.protocol == AWG:
            awg = _decode(pb.AmneziaWGConfig, request.config)
            for position, peer in enumerate(awg.peers):
                if not peer.public_key:
                    raise InvalidInput(f"peers[{position}].public_key: is empty")
            return await self._writer.run(lambda: self._push_awg(request.revision, awg))
        if request.protocol == XRAY and self._plane.has_xray:
            xray = _decode(pb.XRayRealityConfig, request.config)
            if xray.port == 0:
                raise InvalidInput("port: 0 is no port; 1 to 65535 would do")
            for position, peer in enumerate(xray.peers):
                if not convert.client_id(peer):
                    raise InvalidInput(f"peers[{position}]: has neither public_key nor id")
            return await self._writer.run(lambda: self._push_xray(request.revision, xray))
        raise self._unimplemented(request.protocol)

    async def _push_awg(self, revision: int, config: pb.AmneziaWGConfig) -> pb.PushConfigResponse:
        applied = self.applied_revision
        if revision < applied:
            text = f"revision {revision} is older than the applied {applied}"
            raise RpcRefused(grpc.StatusCode.FAILED_PRECONDITION, text)
        if revision == applied and applied > 0:
            return pb.PushConfigResponse(applied_revision=applied, reloaded=False)
        await self._plane.replace_peers(convert.peer_configs(config.peers))
        self._complaints.pop("up", None)
        await self._save(lambda: self._state.set_awg_revision(revision))
        self.applied_revision = revision
        return pb.PushConfigResponse(applied_revision=revision, reloaded=True)

    async def _push_xray(self, revision: int, config: pb.XRayRealityConfig) -> pb.PushConfigResponse:
        try:
            reloaded = await self.xray.push(revision, lambda: verdict(lambda: convert.xray_config(config)))
            self._complaints.pop("xray", None)
        except Stale:
            text = f"revision {revision} is older than the applied {self.xray.revision}"
            raise RpcRefused(grpc.StatusCode.INTERNAL, text) from None
        return pb.PushConfigResponse(applied_revision=revision, reloaded=reloaded)

    async def add_peer(self, request: pb.AddPeerRequest) -> pb.PeerResponse:
        if not request.HasField("peer"):
            raise InvalidInput("peer: is missing")
        peer = request.peer
        if peer.protocol == AWG:
            if not peer.public_key:
                raise RpcRefused(grpc.StatusCode.INTERNAL, "peer.public_key: is empty")
            config = convert.peer_config("peer", peer)
            await self._writer.run(lambda: self._plane.upsert_peer(config))
            return pb.PeerResponse(peer_id=peer.id, applied=True)
        if peer.protocol == XRAY and self._plane.has_xray:
            if not convert.client_id(peer):
                raise InvalidInput("peer: has neither public_key nor id")
            client = verdict(lambda: convert.xray_client("peer", peer))
            added = await self._writer.run(lambda: self.xray.add(client))
            return pb.PeerResponse(peer_id=client.id, applied=added)
        raise self._unimplemented(peer.protocol)

    async def remove_peer(self, request: pb.RemovePeerRequest) -> pb.PeerResponse:
        if request.protocol not in (AWG, XRAY) or (request.protocol == XRAY and not self._plane.has_xray):
            raise self._unimplemented(request.protocol)
        if not request.public_key:
            raise InvalidInput("public_key: is empty")
        key = request.public_key
        if request.protocol == XRAY:
            return pb.PeerResponse(applied=await self._writer.run(lambda: self.xray.remove(key)))
        # No check of the key's form: a conf that another agent left may hold a bad one, and this is how it is cleaned.
        validate.printable("public_key", key)
        await self._writer.run(lambda: self._plane.remove_peer(key))
        return pb.PeerResponse(applied=True)

    async def restart_service(self, request: pb.RestartServiceRequest) -> pb.RestartServiceResponse:
        if request.protocol == AWG:
            await self._writer.run(self._plane.up)
            self._complaints.pop("up", None)
        elif request.protocol == XRAY and self._plane.has_xray:
            await self._writer.run(self.xray.restart)
        else:
            raise self._unimplemented(request.protocol)
        return pb.RestartServiceResponse(restarted=True)

    async def set_network_config(self, request: pb.SetNetworkConfigRequest) -> pb.SetNetworkConfigResponse:
        if not request.HasField("config"):
            raise InvalidInput("config: is missing")
        policy = convert.policy_from(request.config)
        await self._writer.run(lambda: self._set_policy(policy))
        return pb.SetNetworkConfigResponse(applied=True)

    async def _set_policy(self, policy: Policy) -> None:
        before = self._policy if self._policy is not None else StoredPolicy(Policy())
        try:
            stored = await self._plane.apply_policy(policy, self._policy, self._write_policy)
            try:
                await self._keep_policy(stored)
            except OSError:
                # What is not on disk would be forgotten, teardown commands included: back to what is.
                await self._plane.apply_policy(before.policy, stored, self._write_policy)
                raise
        except (DataPlaneFailed, OSError) as error:
            self._complain("policy", f"network policy not applied: {error}")
            with suppress(OSError):
                await self._write_policy(before)
            raise
        self._complaints.pop("policy", None)

    async def configure_inner_link(self, request: pb.ConfigureInnerLinkRequest) -> pb.ConfigureInnerLinkResponse:
        if not request.HasField("config"):
            raise InvalidInput("config: is missing")
        link = convert.link_config(request.config)
        revision = request.revision

        async def change() -> pb.ConfigureInnerLinkResponse:
            applied = self._state.link_revision(link.interface)
            if revision < applied:
                text = f"revision {revision} of {link.interface} is older than the applied {applied}"
                raise RpcRefused(grpc.StatusCode.FAILED_PRECONDITION, text)
            # A link that is gone is made anew, where the existing agent takes it for applied (node-contract.md 4.12).
            if revision == applied and applied > 0 and await self._plane.link_is_up(link.interface):
                return pb.ConfigureInnerLinkResponse(applied_revision=applied, reloaded=False)
            await self._plane.configure_link(link)
            await self._save(lambda: self._state.set_link_revision(link.interface, revision))
            self._forget_link_complaints()
            return pb.ConfigureInnerLinkResponse(applied_revision=revision, reloaded=True)

        return await self._writer.run(change)

    async def remove_inner_link(self, request: pb.RemoveInnerLinkRequest) -> pb.RemoveInnerLinkResponse:
        if not request.interface:
            raise InvalidInput("interface: is empty")
        if request.interface == validate.CLIENT_INTERFACE:
            raise RpcRefused(grpc.StatusCode.INTERNAL, f"{request.interface} is the clients' interface")
        interface = validate.interface("interface", request.interface)

        async def change() -> None:
            await self._plane.remove_link(interface)
            await self._save(lambda: self._state.forget_link(interface))
            self._forget_link_complaints()

        await self._writer.run(change)
        return pb.RemoveInnerLinkResponse(removed=True)

    # -- plumbing

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server adds."""
        return self.door.handler()

    async def _save(self, write: Callable[[], None]) -> None:
        if self._state.files.blocking:
            await asyncio.to_thread(write)
        else:
            write()

    def _readable(self, about: str, read: Callable[[], T | None]) -> T | None:
        """A file that cannot be understood is told, and is no reason not to serve: the controller will send it anew."""
        try:
            return read()
        except Refused as error:
            self._complain(about, str(error))
            return None

    def _complain(self, about: str, sentence: str) -> None:
        if self._complaints.get(about) != sentence:
            _log.warning("%s", scrub(sentence))
        self._complaints[about] = sentence

    def _forget_link_complaints(self) -> None:
        for about in [about for about in self._complaints if about.startswith("link ")]:
            del self._complaints[about]

    @staticmethod
    def _unimplemented(protocol: int) -> RpcRefused:
        return RpcRefused(grpc.StatusCode.UNIMPLEMENTED, f"protocol {protocol} is not served by this agent")


def _decode(message: type[M], content: bytes) -> M:
    try:
        return message.FromString(content)
    except DecodeError:
        raise InvalidInput(f"config: cannot be decoded as {message.DESCRIPTOR.name}") from None
