"""How a simulated node misbehaves on demand (node-contract.md 9.3)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc

from coxswain.agent.rpc import RpcRefused
from coxswain.clock import Clock
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

__all__ = ["ANY", "GARBAGE", "Call", "Knobs", "Pushed", "Swapped", "garbled", "repeated", "swallowed"]

ANY = "*"
"""Stands for every unary method."""

GARBAGE = b"\xff\xff\xff\xff\xffnot protobuf"
"""Bytes that no message can be read from: field number 0x1fffffff with a wire type that does not exist."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request that reached the node. ``at``: monotonic seconds."""

    at: float
    method: str
    request: bytes


@dataclass(frozen=True, slots=True)
class Pushed:
    """One PushConfig that was answered. ``at``: monotonic seconds, ``wall``: epoch seconds."""

    at: float
    wall: float
    protocol: int
    revision: int
    reloaded: bool


class Knobs:
    """One node's switches; the service's ``Hook``. Methods named ``ANY`` mean all unary ones.

    Attributes:
        calls: the requests that arrived, the last thousand; None: not recorded.
        pushes: answered PushConfig calls, the last 64.
        hides_keys: ListPeers shows no preshared keys, as an agent may have it (node-contract.md 9.1, 7).
        future_revision: what GetStatus reports as applied revision instead of the truth; None: the truth.
        misnames: what GetStatus names as the policy and as the REALITY inbound that are held, whatever is; empty: the truth.
    """

    def __init__(self, clock: Clock, *, record: bool = False) -> None:
        self.calls: deque[Call] | None = deque(maxlen=1000) if record else None
        self.pushes: deque[Pushed] = deque(maxlen=64)
        self.hides_keys = False
        self.future_revision: int | None = None
        self.misnames = ""
        self._clock = clock
        self._fail: dict[str, list[tuple[grpc.StatusCode, str, bool]]] = {}
        self._delay: dict[str, float] = {}
        self._garbage: dict[str, int] = {}
        self._stalled: dict[str, asyncio.Event] = {}

    def fail_next(
        self, method: str, code: grpc.StatusCode, times: int = 1, text: str = "injected", *, after: bool = False
    ) -> None:
        """The next calls end with ``code``. ``after``: only once the work is done, so that its answer is lost."""
        self._fail.setdefault(method, []).extend([(code, text, after)] * times)

    def delay(self, method: str, seconds: float) -> None:
        """Every call waits before it is worked on; 0 ends that."""
        self._delay[method] = seconds

    def garbage(self, method: str, times: int = 1) -> None:
        """The next calls are answered with bytes that cannot be decoded; a negative number: until told otherwise."""
        self._garbage[method] = times

    def stall(self, method: str = ANY) -> None:
        """Calls are never answered, until ``release``."""
        self._stalled.setdefault(method, asyncio.Event())

    def release(self, method: str | None = None) -> None:
        """Ends a stall (None: all); the calls that waited are answered."""
        for name in [method] if method is not None else list(self._stalled):
            event = self._stalled.pop(name, None)
            if event is not None:
                event.set()

    def clear(self) -> None:
        """All switches back to honest."""
        self.release()
        self.hides_keys = False
        self.future_revision = None
        self.misnames = ""
        for switch in (self._fail, self._delay, self._garbage):
            switch.clear()

    async def around(self, method: str, request: bytes, proceed: Callable[[], Awaitable[bytes]]) -> bytes:
        if self.calls is not None:
            self.calls.append(Call(self._clock.monotonic(), method, request))
        seconds = self._delay.get(method) or self._delay.get(ANY)
        if seconds:
            await asyncio.sleep(seconds)
        while (stalled := self._stalled.get(method) or self._stalled.get(ANY)) is not None:
            await stalled.wait()
        failure = self._next_failure(method)
        if failure is not None and not failure[2]:
            raise RpcRefused(failure[0], failure[1])
        answer = await proceed()
        if method == "PushConfig":
            self._note_push(request, answer)
        if failure is not None:
            raise RpcRefused(failure[0], failure[1])
        if self._takes_garbage(method):
            return GARBAGE
        if method == "GetStatus" and (self.future_revision is not None or self.misnames):
            status = pb.GetStatusResponse.FromString(answer)
            if self.future_revision is not None:
                status.applied_revision = self.future_revision
            for field in ("network_fingerprint", "xray_fingerprint"):
                if self.misnames and getattr(status, field):
                    setattr(status, field, self.misnames)
            return status.SerializeToString()
        if method == "ListPeers" and self.hides_keys:
            listed = pb.ListPeersResponse.FromString(answer)
            for state in listed.peers:
                state.peer.preshared_key = ""
            return listed.SerializeToString()
        return answer

    def _next_failure(self, method: str) -> tuple[grpc.StatusCode, str, bool] | None:
        for name in (method, ANY):
            if self._fail.get(name):
                return self._fail[name].pop(0)
        return None

    def _takes_garbage(self, method: str) -> bool:
        for name in (method, ANY):
            left = self._garbage.get(name, 0)
            if left:
                self._garbage[name] = left - 1 if left > 0 else left
                return True
        return False

    def _note_push(self, request: bytes, answer: bytes) -> None:
        protocol = pb.PushConfigRequest.FromString(request).protocol
        response = pb.PushConfigResponse.FromString(answer)
        now, wall = self._clock.monotonic(), self._clock.now()
        self.pushes.append(Pushed(now, wall, protocol, response.applied_revision, response.reloaded))


def repeated(event: bytes) -> list[bytes]:
    """For ``EventHub.mangle``: every event comes twice."""
    return [event, event]


class Swapped:
    """For ``EventHub.mangle``: events come in pairs, the later one first."""

    def __init__(self) -> None:
        self._held: bytes | None = None

    def __call__(self, event: bytes) -> list[bytes]:
        if self._held is None:
            self._held = event
            return []
        pair, self._held = [event, self._held], None
        return pair


def swallowed(event: bytes) -> list[bytes]:  # noqa: ARG001 - that is the point
    """For ``EventHub.mangle``: no event comes."""
    return []


def garbled(event: bytes) -> list[bytes]:
    """For ``EventHub.mangle``: what comes cannot be decoded."""
    return [GARBAGE + event]
