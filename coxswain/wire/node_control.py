"""The client side of ``pharos.node.v1.NodeControl`` (node-contract.md 1.1, 2.4, 11.5), on ``grpc.aio``.

All coroutines here belong on one event loop thread. Deadlines follow the contract: reading calls get a short one, mutating
calls a long one, because a deadline that passes kills the tool that the agent is running, roll-back included
(node-contract.md 4.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from coxswain.errors import NodeFailure, NodeMisbehaved, NodeRefused, NodeUnreachable
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from coxswain.words import plain

__all__ = ["SERVICE", "Deadlines", "NodeControl", "RpcFailed", "channel_options", "explain", "method_path"]

SERVICE = "pharos.node.v1.NodeControl"

_MAX_RECEIVE_BYTES = 32 * 1024 * 1024
"""Bounds what one answer of a node may cost. ListPeers of 27,000 peers, the most that fit a push (node-contract.md 2.6),
is about 7 MB."""

_KEEPALIVE_MS = 420_000
"""Agents count HTTP/2 pings closer than five minutes as strikes (node-contract.md 2.6), so seven; its side effect is
TCP_USER_TIMEOUT, which finds a vanished peer as soon as anything is sent."""

R = TypeVar("R", bound=Message)


def method_path(method: str) -> str:
    """The HTTP/2 path of a method of NodeControl."""
    return f"/{SERVICE}/{method}"


_WINDOW_BYTES = 262_144

_FRAME_BYTES = 4_096
"""Of a TLS record that is sent. A link holds a buffer of this size for life, and what it sends is hardly ever longer."""


def channel_options(host: str, server_name: str) -> list[tuple[str, Any]]:
    """Options of a channel to one node.

    Args:
        host: the dialled host, sent as authority.
        server_name: the TLS name that the node's certificate must carry (``coxswain.pki``).
    """
    return [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.enable_channelz", 0),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
        ("grpc.tsi.max_frame_size", _FRAME_BYTES),
        ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 10_000),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.ssl_target_name_override", server_name),
        ("grpc.default_authority", host),
    ]


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds per call.

    Attributes:
        read: GetStatus (node-contract.md 11.5).
        list: ListPeers, which may carry megabytes.
        change: mutating calls (node-contract.md 4.1: at least 60).
    """

    read: float = 10.0
    list: float = 30.0
    change: float = 90.0


class RpcFailed(Exception):
    """A call ended with a status other than OK."""

    def __init__(self, method: str, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{method}: {code.name}: {details}")
        self.method = method
        self.code = code
        self.details = details


_ANOTHER_NAME = ("Hostname Verification Check failed", "Peer name")
_FOREIGN_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", *_ANOTHER_NAME)


_ANOTHER_NODE = (
    "If another node answers at this address, give the right one: cox nodes edit NODE --addr HOST. Else enrol the node "
    "again: cox nodes enroll"
)


def is_foreign_certificate(failure: RpcFailed) -> bool:
    """True if our side refused the node's certificate (node-contract.md 2.4)."""
    return any(mark in failure.details for mark in _FOREIGN_CERTIFICATE)


def _whose(details: str) -> str:
    """What BoringSSL says of a certificate that it does not verify, in an operator's words."""
    if "local issuer certificate" in details or "self signed certificate" in details:
        return ": another CA issued it, so another controller has enrolled the node"
    if "has expired" in details:
        return ": it has expired"
    if _has_another_name(details):
        return ": it is that of another node, or one of this node that was replaced or revoked"
    return ""


def _has_another_name(details: str) -> bool:
    """Our CA issued it; each certificate has a name of its own."""
    return any(mark in details for mark in _ANOTHER_NAME)


def explain(failure: RpcFailed) -> NodeFailure:
    """Turns a failed call into the error that an operator reads."""
    where = failure.method
    text = plain(" ".join(failure.details[:4_000].split())[:200])
    match failure.code:
        case grpc.StatusCode.UNAVAILABLE if is_foreign_certificate(failure):
            return NodeUnreachable(
                f"{where}: the node's certificate is not one that this controller accepts for it{_whose(failure.details)}",
                remedy=_ANOTHER_NODE
                if _has_another_name(failure.details)
                else "It was revoked, replaced or issued elsewhere. Enrol the node again: cox nodes enroll",
            )
        case grpc.StatusCode.UNAVAILABLE if "refused" in text.lower():
            return NodeUnreachable(f"{where}: connection refused: no agent listens there")
        case grpc.StatusCode.UNAVAILABLE:
            return NodeUnreachable(f"{where}: the connection failed: {text}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return NodeUnreachable(f"{where}: no answer in time")
        case grpc.StatusCode.CANCELLED:
            return NodeUnreachable(f"{where}: the connection was closed")
        case code:
            return NodeRefused(f"{where}: {code.name}: {text}")


class NodeControl:
    """One node's RPCs over one channel. Calls raise ``RpcFailed``; nothing here retries."""

    def __init__(self, channel: grpc.aio.Channel, deadlines: Deadlines) -> None:
        self._channel = channel
        self._deadlines = deadlines

    async def get_status(self) -> pb.GetStatusResponse:
        return await self._call("GetStatus", pb.GetStatusRequest(), pb.GetStatusResponse, self._deadlines.read)

    async def get_metrics(self) -> pb.GetMetricsResponse:
        return await self._call("GetMetrics", pb.GetMetricsRequest(), pb.GetMetricsResponse, self._deadlines.list)

    async def list_peers(self, protocol: pb.Protocol.ValueType) -> pb.ListPeersResponse:
        return await _answer("ListPeers", self._begin_list(protocol), pb.ListPeersResponse)

    async def peers_if_listed(self, protocol: pb.Protocol.ValueType) -> pb.ListPeersResponse | None:
        """None: its agent has no such method."""
        return await _if_listed(self._begin_list(protocol))

    async def status_and_peers(
        self, protocol: pb.Protocol.ValueType
    ) -> tuple[pb.GetStatusResponse, pb.ListPeersResponse | None]:
        """Both answers, asked for at once: a call begins when it is made, so this takes no tasks but theirs. Of the second
        one: ``peers_if_listed``.
        """
        peers = self._begin_list(protocol)
        try:
            status = await self.get_status()
        except BaseException:
            peers.cancel()
            raise
        return status, await _if_listed(peers)

    def _begin_list(self, protocol: pb.Protocol.ValueType) -> grpc.aio.UnaryUnaryCall[Any, Any]:
        return self._begin("ListPeers", pb.ListPeersRequest(protocol=protocol), pb.ListPeersResponse, self._deadlines.list)

    async def push_config(self, request: pb.PushConfigRequest) -> pb.PushConfigResponse:
        return await self._call("PushConfig", request, pb.PushConfigResponse, self._deadlines.change)

    async def add_peer(self, peer: pb.Peer) -> pb.PeerResponse:
        return await self._call("AddPeer", pb.AddPeerRequest(peer=peer), pb.PeerResponse, self._deadlines.change)

    async def remove_peer(self, protocol: pb.Protocol.ValueType, public_key: str) -> pb.PeerResponse:
        request = pb.RemovePeerRequest(protocol=protocol, public_key=public_key)
        return await self._call("RemovePeer", request, pb.PeerResponse, self._deadlines.change)

    async def restart_service(self, protocol: pb.Protocol.ValueType) -> pb.RestartServiceResponse:
        request = pb.RestartServiceRequest(protocol=protocol)
        return await self._call("RestartService", request, pb.RestartServiceResponse, self._deadlines.change)

    async def set_network_config(self, config: pb.NetworkConfig) -> pb.SetNetworkConfigResponse:
        request = pb.SetNetworkConfigRequest(config=config)
        return await self._call("SetNetworkConfig", request, pb.SetNetworkConfigResponse, self._deadlines.change)

    async def configure_inner_link(self, config: pb.InnerLinkConfig, revision: int) -> pb.ConfigureInnerLinkResponse:
        request = pb.ConfigureInnerLinkRequest(config=config, revision=revision)
        return await self._call("ConfigureInnerLink", request, pb.ConfigureInnerLinkResponse, self._deadlines.change)

    async def remove_inner_link(self, interface: str) -> pb.RemoveInnerLinkResponse:
        request = pb.RemoveInnerLinkRequest(interface=interface)
        return await self._call("RemoveInnerLink", request, pb.RemoveInnerLinkResponse, self._deadlines.change)

    def watch_events(self) -> grpc.aio.UnaryStreamCall[pb.WatchEventsRequest, pb.Event]:
        """Opens the event stream. No deadline; never wait for its initial metadata (node-contract.md 5.7)."""
        stream = self._channel.unary_stream(
            method_path("WatchEvents"),
            request_serializer=pb.WatchEventsRequest.SerializeToString,
            response_deserializer=pb.Event.FromString,
        )
        return stream(pb.WatchEventsRequest())

    async def _call(self, method: str, request: Message, response: type[R], deadline: float) -> R:
        return await _answer(method, self._begin(method, request, response, deadline), response)

    def _begin(
        self, method: str, request: Message, response: type[Message], deadline: float
    ) -> grpc.aio.UnaryUnaryCall[Any, Any]:
        call = self._channel.unary_unary(
            method_path(method),
            request_serializer=cast("Callable[[Any], bytes]", type(request).SerializeToString),
            response_deserializer=response.FromString,
        )
        return call(request, timeout=deadline)


async def _if_listed(call: grpc.aio.UnaryUnaryCall[Any, Any]) -> pb.ListPeersResponse | None:
    try:
        return await _answer("ListPeers", call, pb.ListPeersResponse)
    except RpcFailed as failure:
        if failure.code is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        return None


async def _answer(method: str, call: grpc.aio.UnaryUnaryCall[Any, Any], response: type[R]) -> R:
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        raise RpcFailed(method, error.code(), error.details() or "") from None
    if answer is None:  # what grpc.aio gives for bytes that it cannot decode
        raise NodeMisbehaved(f"{method}: the answer is not a {response.DESCRIPTOR.name}")
    return cast("R", answer)
