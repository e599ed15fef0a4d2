"""A fleet's certificates, a relay's files, devices, and a stand-in for AccountSync: what tests of relays are made of."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coxswain.pki import (
    Authority,
    Leaf,
    Role,
    create_authorities,
    issue_device_leaf,
    issue_grpc_leaf,
    issue_hop_leaf,
    issue_relay_leaf,
)
from coxswain.relay.contexts import Credentials
from coxswain.relay.policy import TargetPolicy, sign_policy
from tests.support import eventually

CLAIM = "/pharos.account.v1.AccountSync/ClaimEnrollment"
FETCH = "/pharos.account.v1.AccountSync/FetchBundle"
DEVICE_CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIHUMIGHoAMCAQICAQcwBQYDK2VwMBQxEjAQBgNVBAMMCWZwLXZlY3RvcjAeFw0y
NjAxMDEwMDAwMDBaFw0zNjAxMDEwMDAwMDBaMBQxEjAQBgNVBAMMCWZwLXZlY3Rv
cjAqMAUGAytlcAMhAOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIsMAUG
AytlcANBAA0K4mceDkjs+HUOo6OoYQp6dyUOhHOoREEcAIfSs8FeLYIzbAp22Km/
hljh1HfF9fxX5N1pzet3UK2GowMUmAA=
-----END CERTIFICATE-----
"""
DEVICE_FINGERPRINT = "sha256:0a1ea3ad92f5fb6c82ab4e35f533efa42359cb2e659ecf9715de0152494aca3a"
"""The vector of relay-contract.md 1.5."""

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
]


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@dataclass
class Pki:
    """The authorities of one fleet, and what they issue."""

    authorities: dict[Role, Authority]

    @classmethod
    def make(cls) -> Pki:
        return cls(create_authorities(time.time()))

    @property
    def fleet(self) -> Authority:
        return self.authorities[Role.FLEET]

    def relay(self, host: str = "127.0.0.1", *, anchor: Role = Role.FLEET, chain: bool = True) -> Credentials:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = issue_relay_leaf(self.fleet, key.public_key(), host, time.time())
        return Credentials(leaf.pem + (self.fleet.pem if chain else b""), key_pem(key), self.authorities[anchor].pem)

    def controller(self) -> Credentials:
        """With which the controller comes to egress relays."""
        leaf = issue_hop_leaf(self.fleet, time.time())
        assert leaf.key is not None
        return Credentials(leaf.pem + self.fleet.pem, key_pem(leaf.key), self.fleet.pem)

    def policy(self, relay: str, serial: int, *targets: str, by: Credentials | None = None) -> bytes:
        """Where a relay may connect, as the controller says it."""
        signer = by or self.controller()
        return sign_policy(TargetPolicy(relay, serial, targets), signer.chain_pem, signer.key_pem)

    def grpc(self) -> tuple[Leaf, bytes]:
        leaf = issue_grpc_leaf(self.fleet, time.time())
        assert leaf.key is not None
        return leaf, key_pem(leaf.key)

    def device(self) -> tuple[bytes, bytes]:
        """PEM of leaf and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        return issue_device_leaf(self.authorities[Role.DEVICE], key.public_key(), "phone", time.time()).pem, key_pem(key)

    def write_relay(self, directory: Path, host: str = "127.0.0.1") -> x509.Certificate:
        """The four files of relay-contract.md 7.2. Returns its certificate."""
        directory.mkdir(parents=True, exist_ok=True)
        credentials = self.relay(host)
        (directory / "relay.crt").write_bytes(credentials.chain_pem)
        (directory / "relay.key").write_bytes(credentials.key_pem)
        (directory / "fleet-ca.crt").write_bytes(self.fleet.pem)
        (directory / "device-ca.crt").write_bytes(self.authorities[Role.DEVICE].pem)
        return x509.load_pem_x509_certificate(credentials.chain_pem)


@contextlib.contextmanager
def relay_program(*arguments: str, ready: str = "ready") -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """``cox-relay`` as a process; gives it, and what it has logged so far. Stopped, and seen to stop, at the end."""
    command = [sys.executable, "-m", "coxswain.relay.main", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        import threading  # noqa: PLC0415

        reader = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")), daemon=True)
        reader.start()
        try:
            eventually(lambda: any(ready in line for line in lines) or process.poll() is not None, timeout=30)
            yield process, lambda: "".join(lines)
        finally:
            process.terminate()
            process.wait(30)
            reader.join(30)


class Account(grpc.GenericRpcHandler):
    """Takes bytes and gives bytes, whatever the method: what AccountSync is to a relay."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method
        metadata = [(key, value) for key, value in details.invocation_metadata]

        async def answer(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            keys: dict[str, list[str | bytes]] = {}
            for key, value in metadata:
                keys.setdefault(key, []).append(value)
            self.seen.append((method, keys | {"left": context.time_remaining(), "peer": context.auth_context()}))
            name = method.rpartition("/")[2]
            await context.send_initial_metadata((("x-early", "yes"),))
            if name == "Refuse":
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no — não", (("x-why", "because"),))
            if name == "Hang":
                import asyncio  # noqa: PLC0415

                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.seen.append(("cancelled", {}))
                    raise
            context.set_trailing_metadata((("x-after", "done"), ("x-raw-bin", b"\x00\xff")))
            async for request in requests:
                yield request

        return grpc.stream_stream_rpc_method_handler(answer)


@contextlib.asynccontextmanager
async def account_sync(pki: Pki, path: Path, account: Account) -> AsyncIterator[grpc.aio.Server]:
    """Serves it on a unix socket with the ``grpc`` leaf; callers show a certificate of the Fleet CA."""
    leaf, key = pki.grpc()
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((account,))
    credentials = grpc.ssl_server_credentials([(key, leaf.pem + pki.fleet.pem)], pki.fleet.pem, require_client_auth=True)
    server.add_secure_port(f"unix:{path}", credentials)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


def device_channel(pki: Pki, target: str, device: tuple[bytes, bytes] | None, **more: Any) -> grpc.aio.Channel:
    """As an existing client dials: it pins the Fleet CA."""
    pem, key = device or (None, None)
    credentials = grpc.ssl_channel_credentials(pki.fleet.pem, key, pem)
    return grpc.aio.secure_channel(target, credentials, options=OPTIONS, **more)


async def call(channel: grpc.aio.Channel, path: str = FETCH, request: bytes = b"hello", **more: Any) -> bytes:
    """A unary call with bytes in and out."""
    answer: Awaitable[bytes] = channel.unary_unary(path)(request, wait_for_ready=False, **({"timeout": 20} | more))
    return await answer


def untrusting() -> ssl.SSLContext:
    """A TLS client without a certificate that believes everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
