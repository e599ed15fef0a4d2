"""A consumer of the SIEM stream, with a real gRPC client; and what makes events for it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

from coxswain.messages.hub import Publish, PublishAll
from coxswain.messages.sessions import EventBatch, EventKind, NodeEvent
from coxswain.model import Protocol
from coxswain.wire.pharos.monitor.v1 import monitor_pb2 as pb
from tests.fleet import Controller

__all__ = ["ALERT", "METHOD", "Consumer", "connect", "disconnect", "existing_event", "publish", "refusal"]

METHOD = "/pharos.monitor.v1.MonitorStream/Subscribe"
ALERT = {
    "id": "alr_aaaaaaaaaaaaaaaa",
    "at": "2026-03-01T00:00:00.000000Z",
    "kind": "new_geo",
    "severity": "warning",
    "device_id": "dev_1",
    "user_id": "usr_1",
    "node_id": "nod_1",
    "source_ips": ["198.51.100.7", "2001:db8::1"],
    "detail": {"country": "FR"},
    "status": "open",
    "dedup_key": "new_geo|dev_1|FR",
}
_NUMBERS = itertools.count(1)


class Consumer:
    """One subscription; iterates over its events. Gives up after a minute."""

    def __init__(
        self,
        address: str,
        secret: str,
        kinds: Sequence[str] = (),
        *,
        cursor: str = "",
        marks: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        plain = credentials is None
        self._channel = (
            grpc.insecure_channel(address, options) if plain else grpc.secure_channel(address, credentials, options)
        )
        subscribe = self._channel.unary_stream(
            METHOD,
            request_serializer=pb.SubscribeRequest.SerializeToString,
            response_deserializer=pb.MonitorEvent.FromString,
        )
        request = pb.SubscribeRequest(kinds=kinds, cursor=cursor, marks=marks)
        metadata = (("authorization", f"Bearer {secret}"),) if secret else ()
        self._call: Any = subscribe(request, metadata=metadata, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()
        self._channel.close()

    def __iter__(self) -> Iterator[pb.MonitorEvent]:
        return iter(self._call)

    def ready(self) -> dict[str, str]:
        """Waits until it is subscribed; returns what it is told first. Raises ``grpc.RpcError``."""
        found = dict(self._call.initial_metadata())
        if "cox-cursor" not in found:
            next(self._call)  # raises what it ended with
        return found

    def take(self, count: int) -> list[pb.MonitorEvent]:
        return [next(self._call) for _ in range(count)]

    def end(self) -> tuple[grpc.StatusCode, str]:
        """Reads on to the end."""
        try:
            for _ in self._call:
                pass
        except grpc.RpcError:
            pass
        return self._call.code(), self._call.details()


def refusal(*arguments: Any, **more: Any) -> tuple[grpc.StatusCode, str]:
    """How a subscription that is refused ends."""
    with Consumer(*arguments, **more) as consumer:
        return consumer.end()


def _event(kind: EventKind, peer: str, moved: int) -> NodeEvent:
    now = time.time()
    return NodeEvent("nod_a", now, now, kind, Protocol.AMNEZIAWG, peer, "", "198.51.100.7:4000", moved, 2 * moved)


def connect(controller: Controller, *peers: str) -> None:
    """At a node of their own."""
    _send(controller, [_event(EventKind.PEER_CONNECTED, peer, 100) for peer in peers])


def disconnect(controller: Controller, *peers: str, moved: int = 50) -> None:
    _send(controller, [_event(EventKind.PEER_DISCONNECTED, peer, 100 + moved) for peer in peers])


def _send(controller: Controller, events: list[NodeEvent]) -> None:
    # Each batch as of a run of its own, so that it is never one that came already.
    assert controller.system.tell("session_tracker", EventBatch(f"siem{next(_NUMBERS)}", 1, tuple(events)))


def publish(controller: Controller, kind: str, times: int = 1, /, **data: Any) -> None:
    assert controller.system.tell("event_hub", PublishAll(tuple(Publish(kind, 1.5, data) for _ in range(times))))


def existing_event(content: bytes) -> Any:
    """As a consumer reads it whose classes are made from the contract alone (management-plane.md 5)."""
    return _EXISTING.FromString(content)


def _existing() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="existing.proto", package="pharos.monitor.v1", syntax="proto3", dependency=["google/protobuf/timestamp.proto"]
    )
    text, number, message = (
        getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{t}") for t in ("STRING", "INT64", "MESSAGE")
    )

    def add(name: str, fields: Sequence[tuple[str, Any, str]], repeated: Sequence[str] = ()) -> None:
        made = file.message_type.add(name=name)
        for place, (field, kind, of) in enumerate(fields, 1):
            label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED if field in repeated else 1
            made.field.add(name=field, number=place, type=kind, label=label, type_name=of or None)

    texts = ["event_type", "node_id", "device_id", "user_id", "protocol", "source_ip", "source_endpoint", "reason"]
    add("SessionEvent", [(n, text, "") for n in texts] + [("rx_bytes", number, ""), ("tx_bytes", number, "")])
    names = ["id", "kind", "severity", "device_id", "user_id", "source_ips", "detail_json"]
    add("AlertEvent", [(n, text, "") for n in names], repeated=["source_ips"])
    add(
        "MonitorEvent",
        [
            ("at", message, ".google.protobuf.Timestamp"),
            ("type", text, ""),
            ("session", message, ".pharos.monitor.v1.SessionEvent"),
            ("alert", message, ".pharos.monitor.v1.AlertEvent"),
        ],
    )
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pharos.monitor.v1.MonitorEvent"))


_EXISTING = _existing()
