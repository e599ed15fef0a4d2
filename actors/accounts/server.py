"""AccountSync on the I/O loop: a gRPC server on a unix socket, to which relays speak (relay-contract.md 1.3, L3).

It decides nothing but whether the caller is a relay: calls go to the actor as messages, and its answers come back here.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.x509.oid import NameOID

from actors.io_loop import IoLoop
from coxswain.accounts.requests import status_of
from coxswain.errors import CoxswainError, Unauthenticated, Unavailable
from coxswain.messages.ca import GrpcCredentials
from coxswain.pki.certificates import RELAY_ORGANIZATION
from coxswain.wire.pharos.account.v1 import account_pb2 as pb
from coxswain.words import counted

__all__ = ["SyncCall", "SyncServer"]

_log = logging.getLogger(__name__)

SERVICE = "pharos.account.v1.AccountSync"
_ANSWER_S = 20.0
_MAX_REQUEST_BYTES = 256 * 1024
_MAX_CALLS = 128
"""At once; beyond, gRPC says RESOURCE_EXHAUSTED by itself."""

_STOP_S = 1.0
_LONGEST_PATH = 107
"""Bytes of a unix socket's path (unix(7))."""

_REQUESTS: dict[str, tuple[Any, Any]] = {
    "Authenticate": (pb.AuthenticateRequest, pb.AuthenticateResponse),
    "EnrollKeys": (pb.EnrollKeysRequest, pb.EnrollKeysResponse),
    "GetProfile": (pb.GetProfileRequest, pb.GetProfileResponse),
    "ClaimEnrollment": (pb.ClaimEnrollmentRequest, pb.ClaimEnrollmentResponse),
}


@dataclass(frozen=True, slots=True)
class SyncCall:
    """One call, for the actor. ``relay``: serial number of the relay's certificate; then what operators call it.

    ``answer`` takes the response, or the error; on any thread, once.
    """

    method: str
    request: Any = field(repr=False)
    fingerprint: str
    session: str = field(repr=False)
    relay: str
    answer: Callable[[Any], None] = field(repr=False)


class SyncServer:
    """Outlives the actor, and serves for whichever incarnation of it spoke last; on whichever loop there is."""

    def __init__(self, io: IoLoop, path: Path) -> None:
        self._io = io
        self._path = path
        self._server: grpc.aio.Server | None = None
        self._credentials: GrpcCredentials | None = None
        self._fresh: grpc.ServerCertificateConfiguration | None = None
        self._deliver: Callable[[SyncCall], bool] = _nobody
        self._fell: Callable[[BaseException], object] = _log_failure
        self._turn = asyncio.Lock()
        self._again: asyncio.Future[None] | None = None
        self._waiting: set[asyncio.Future[Any]] = set()

    def reset(self) -> None:
        """A new loop: the server that stood on the old one is gone with it; what was served, is served again."""
        self._server = None
        self._turn = asyncio.Lock()
        self._waiting = set()
        if self._credentials is not None:
            self._again = asyncio.ensure_future(self._serve(self._credentials, self._deliver, self._fell))
            self._again.add_done_callback(self._on_again)

    async def let_go(self) -> None:
        """Before a loop ends, or the core writes into memory that is another's (``IoLoop.on_stop``)."""
        async with self._turn:
            server, self._server = self._server, None
            if server is not None:
                await server.stop(None)

    def serve(
        self,
        credentials: GrpcCredentials,
        deliver: Callable[[SyncCall], bool],
        fell: Callable[[BaseException], object],
    ) -> Future[None]:
        """Calls go to ``deliver`` from now on, which must not block; False: it could not be delivered. A server that runs is
        kept, and shows the new certificate to who connects from now on. ``fell`` is told, on the loop's thread, if it cannot
        be served any more on a later loop; nobody tries again by himself. Any thread.

        The future fails with ``CoxswainError`` or ``OSError`` if nothing can be served there.
        """
        return self._io.submit(self._serve(credentials, deliver, fell))

    def halt(self) -> Future[None]:
        """Ends the server, if one runs."""
        return self._io.submit(self._halt())

    async def _serve(
        self,
        credentials: GrpcCredentials,
        deliver: Callable[[SyncCall], bool],
        fell: Callable[[BaseException], object],
    ) -> None:
        async with self._turn:
            self._fell = fell
            if deliver != self._deliver:
                self._deliver = deliver
                self._give_up()
            self._credentials = credentials
            self._fresh = _configuration(credentials)
            if self._server is None:
                self._server = await self._start(self._fresh)

    def _on_again(self, done: asyncio.Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None:
            self._fell(error)

    def _give_up(self) -> None:
        """What an earlier incarnation was asked, nobody answers any more."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(Unavailable("it was replaced"))

    async def _halt(self) -> None:
        async with self._turn:
            server, self._server, self._credentials = self._server, None, None
            if server is not None:
                await server.stop(_STOP_S)
                self._path.unlink(missing_ok=True)

    async def _start(self, configuration: grpc.ServerCertificateConfiguration) -> grpc.aio.Server:
        if len(bytes(self._path)) > _LONGEST_PATH:
            raise Unavailable(f"{self._path} is too long for a socket; choose a shorter state_dir")
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.bdp_probe", 0),
            ),
            maximum_concurrent_rpcs=_MAX_CALLS,
            compression=grpc.Compression.NoCompression,  # relays cannot read anything else (relay-contract.md 1.6)
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        credentials = grpc.dynamic_ssl_server_credentials(
            configuration, lambda: self._fresh, require_client_authentication=True
        )
        server.add_secure_port(f"unix:{self._path}", credentials)
        self._path.chmod(0o600)
        await server.start()
        return server

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        return {
            method: grpc.unary_unary_rpc_method_handler(
                functools.partial(self._handle, method),
                request_deserializer=request.FromString,
                response_serializer=response.SerializeToString,
            )
            for method, (request, response) in _REQUESTS.items()
        }

    async def _handle(self, method: str, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await self._ask(method, request, context)
        except CoxswainError as error:
            code, text = status_of(error)
            await context.abort(grpc.StatusCode[code], text)

    async def _ask(self, method: str, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        relay = _relay_serial(context.auth_context())
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Any] = loop.create_future()

        def settle(value: Any) -> None:
            if answered.done():
                return  # nobody waits any more
            if isinstance(value, Exception):
                answered.set_exception(value)
            else:
                answered.set_result(value)

        call = SyncCall(
            method,
            request,
            fingerprint=_only(context, "x-pharos-device-fp"),
            session=_first(context, "pharos-session"),
            relay=relay,
            answer=lambda value: self._io.call(lambda: settle(value)),
        )
        self._waiting.add(answered)
        try:
            if not self._deliver(call):
                raise Unavailable("nobody answers just now")
            return await asyncio.wait_for(answered, _ANSWER_S)
        except TimeoutError:
            raise Unavailable("no answer in time") from None
        finally:
            self._waiting.discard(answered)


def _relay_serial(auth: Any) -> str:
    """Of the caller's certificate, which chains to the Fleet CA by now. That it is a relay's, is looked at here: nodes have
    certificates of the same CA. Raises ``Unauthenticated``.
    """
    pems = (auth or {}).get("x509_pem_cert", [])
    found = _organization(bytes(pems[0])) if len(pems) == 1 else None
    if found is None or found[0] != RELAY_ORGANIZATION:
        raise Unauthenticated("only relays may speak here")
    return found[1]


@functools.lru_cache(maxsize=256)
def _organization(pem: bytes) -> tuple[str, str] | None:
    """Organization, if there is exactly one, and serial of a certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    except ValueError:
        return None
    return (str(names[0].value), str(certificate.serial_number)) if len(names) == 1 else None


def _values(context: grpc.aio.ServicerContext[Any, Any], name: str) -> list[str]:
    return [str(value) for key, value in context.invocation_metadata() or () if key == name and isinstance(value, str)]


def _first(context: grpc.aio.ServicerContext[Any, Any], name: str) -> str:
    return next(iter(_values(context, name)), "")


def _only(context: grpc.aio.ServicerContext[Any, Any], name: str) -> str:
    """Raises ``Unauthenticated``: a relay sets it exactly once, so one of several is somebody else's."""
    values = _values(context, name)
    if len(values) > 1:
        raise Unauthenticated(f"{name} was given {counted(len(values), 'time')}")
    return values[0] if values else ""


def _configuration(credentials: GrpcCredentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(credentials.key_pem, credentials.chain_pem)], root_certificates=credentials.fleet_ca_pem
    )


def _log_failure(error: BaseException) -> None:
    _log.error("AccountSync is not served on the new I/O loop: %s", error)


def _nobody(_call: SyncCall) -> bool:
    return False
