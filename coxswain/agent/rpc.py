"""Between the wire and the service: bytes in and out, statuses, who may call, the event stream (node-contract.md 4.1, 5.7).

Status texts are diagnostics and hold no key material.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from coxswain.agent.events import EventHub, StreamCut
from coxswain.agent.redact import scrub
from coxswain.errors import CoxswainError, InvalidInput

__all__ = ["SERVICE", "Door", "Hook", "Method", "RpcRefused", "reads", "verdict"]

SERVICE = "pharos.node.v1.NodeControl"

M = TypeVar("M", bound=Message)
T = TypeVar("T")
Method = Callable[[bytes], Awaitable[Message]]

_log = logging.getLogger(__name__)


class RpcRefused(Exception):
    """Ends an RPC with a status."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Hook(Protocol):
    """Comes between the wire and the service, in tests and simulators."""

    async def around(self, method: str, request: bytes, proceed: Callable[[], Awaitable[bytes]]) -> bytes:
        """Returns the serialised answer, from ``proceed`` or of its own. May raise ``RpcRefused``, or never return."""
        ...


def reads(request: type[M], method: Callable[[M], Awaitable[Message]]) -> Method:
    """A method that takes the bytes of its request. Raises ``DecodeError`` when called with others."""
    return lambda content: method(request.FromString(content))


def verdict(read: Callable[[], T]) -> T:
    """What xray-core would refuse is INTERNAL, whoever finds it (node-contract.md 8.3)."""
    try:
        return read()
    except InvalidInput as error:
        raise RpcRefused(grpc.StatusCode.INTERNAL, str(error)) from None


class Door:
    """What a ``grpc.aio`` server gets of one node.

    Args:
        methods: the unary ones by name.
        allowed_clients: common names of client certificates that may call; empty: every certificate that TLS let in.
        hook: see ``Hook``.
    """

    def __init__(
        self, methods: Mapping[str, Method], hub: EventHub, allowed_clients: frozenset[str], hook: Hook | None
    ) -> None:
        self._methods = methods
        self._hub = hub
        self._allowed = allowed_clients
        self._hook = hook

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server adds. Messages pass as bytes, so that an event is serialised once for all its readers."""
        methods: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(cast("Any", self._unary(name))) for name in self._methods
        }
        methods["WatchEvents"] = grpc.unary_stream_rpc_method_handler(cast("Any", self._watch))
        return cast("grpc.GenericRpcHandler", grpc.method_handlers_generic_handler(SERVICE, methods))

    def _unary(self, name: str) -> Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
        async def handle(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            await self._admit(context)
            try:
                if self._hook is None:
                    return await self.answer(name, request)
                return await self._hook.around(name, request, lambda: self.answer(name, request))
            except RpcRefused as refused:
                # Sentences about arguments are our own and name fields; those about failures may quote a tool.
                text = scrub(refused.text) if refused.code is grpc.StatusCode.INTERNAL else refused.text
                await context.abort(refused.code, f"{name}: {text}")
                raise  # abort has raised

        return handle

    async def answer(self, name: str, request: bytes) -> bytes:
        """One call, below the wire. Raises ``RpcRefused`` for whatever goes wrong."""
        try:
            return (await self._methods[name](request)).SerializeToString()
        except (RpcRefused, asyncio.CancelledError):
            raise
        except InvalidInput as error:
            raise RpcRefused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
        except DecodeError:
            raise RpcRefused(grpc.StatusCode.INTERNAL, "the request cannot be decoded") from None
        except (CoxswainError, OSError) as error:
            _log.warning("%s: %s", name, scrub(str(error)))
            raise RpcRefused(grpc.StatusCode.INTERNAL, str(error)) from None
        except Exception as error:
            _log.exception("%s: a defect of the agent", name)
            raise RpcRefused(grpc.StatusCode.INTERNAL, f"a defect of the agent: {type(error).__name__}") from None

    async def _admit(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        if not self._allowed:
            return
        names = {name.decode(errors="replace") for name in context.auth_context().get("x509_common_name", ())}
        if not names & self._allowed:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this client certificate may not drive the node")

    async def _watch(self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await self._admit(context)
        subscription = self._hub.subscribe()
        try:
            # An acknowledgement that the existing agent does not give: the subscription is there (node-contract.md 9.1, 8).
            await context.send_initial_metadata(())
            while (event := await subscription.get()) is not None:
                await context.write(event)
                self._hub.sent += 1
        except StreamCut:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the agent went away")
        finally:
            self._hub.unsubscribe(subscription)
