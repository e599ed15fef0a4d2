"""A client that does what the existing one does, call by call (accounts-profiles.md 5.5, 9.2), and a relay to go through."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coxswain.accounts.identity import DeviceIdentity
from coxswain.accounts.invites import parse_link
from coxswain.accounts.primitives import random_bytes, x25519_public_key
from coxswain.accounts.sealed import open_sealed, read_sealed
from coxswain.ids import new_id
from coxswain.keyring import Keyring, KeySource, load_secret, open_keyring
from coxswain.pki import Role, device_fingerprint, issue_relay_leaf
from coxswain.servers import Relay
from coxswain.statedir import ACCOUNT_SYNC_SOCKET
from coxswain.store import Store, open_store
from coxswain.store import pki as pki_rows
from coxswain.store.servers import insert_relay, insert_relay_cert
from coxswain.wire.pharos.account.v1 import account_pb2 as pb
from tests.fleet import Controller, Daemon

__all__ = ["Caravel", "Door", "PublicPort", "RelayLeg", "claim_request", "csr_of", "leg_on", "leg_to", "pem_of", "relay_leg"]

SERVICE = "/pharos.account.v1.AccountSync"
RESPONSES = {
    "Authenticate": pb.AuthenticateResponse,
    "EnrollKeys": pb.EnrollKeysResponse,
    "GetProfile": pb.GetProfileResponse,
    "ClaimEnrollment": pb.ClaimEnrollmentResponse,
}
_CALL_S = 10.0


class Door(Protocol):
    """How a device reaches AccountSync. ``certificate``, ``key``: its leaf and key in PEM; empty: it has none."""

    def call(self, method: str, request: Any, *, certificate: bytes = b"", key: bytes = b"", session: str = "") -> Any: ...


class RelayLeg:
    """Speaks to the controller as a relay does: mutual TLS on the socket, the device's fingerprint as metadata.

    ``patient``: calls wait for a server that is not there just now.
    """

    patient = True

    def __init__(self, path: Path, root: bytes, chain: bytes, key: bytes) -> None:
        self._pems = (root, chain, key)
        credentials = grpc.ssl_channel_credentials(root, key or None, chain or None)
        options = (
            ("grpc.ssl_target_name_override", "coxswain-grpc"),
            ("grpc.default_authority", "coxswain-grpc"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 200),
        )
        self._channel = grpc.secure_channel(f"unix:{path}", credentials, options)

    def raw(self, method: str, request: Any, metadata: Sequence[tuple[str, str]] = (), *, ready: bool | None = None) -> Any:
        call = self._channel.unary_unary(
            f"{SERVICE}/{method}",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=RESPONSES[method].FromString,
        )
        return call(
            request, timeout=_CALL_S, metadata=tuple(metadata), wait_for_ready=self.patient if ready is None else ready
        )

    def call(self, method: str, request: Any, *, certificate: bytes = b"", key: bytes = b"", session: str = "") -> Any:
        del key  # the relay has seen that the device has it
        metadata = [("x-pharos-device-fp", device_fingerprint(certificate))] if certificate else []
        metadata += [("pharos-session", session)] if session else []
        return self.raw(method, request, metadata)

    def close(self) -> None:
        self._channel.close()

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self._pems[1])

    def to(self, state: Path) -> RelayLeg:
        """The same relay, at another controller."""
        return RelayLeg(state / ACCOUNT_SYNC_SOCKET, *self._pems)


def relay_leg(controller: Controller, name: str = "", *, known: bool = True) -> RelayLeg:
    """With a relay's leaf, as the certificate authority issues them; ``known``: and remembers them."""
    return leg_on(controller.store, controller.keyring, controller.home, name, known=known)


def leg_on(store: Store, keyring: Keyring, state: Path, name: str = "", *, known: bool = True) -> RelayLeg:
    """The same, for whatever serves that state, now or later."""
    with store.read() as tx:
        authorities = pki_rows.load_authorities(tx, keyring)
    key = ec.generate_private_key(ec.SECP256R1())
    fleet = authorities[Role.FLEET]
    leaf = issue_relay_leaf(fleet, key.public_key(), "relay.example", time.time())
    if known:
        with store.write() as tx:
            relay_id = new_id("rly")
            insert_relay(tx, Relay(relay_id, name or relay_id))
            insert_relay_cert(tx, relay_id, leaf, time.time())
    return RelayLeg(state / ACCOUNT_SYNC_SOCKET, fleet.pem, leaf.pem, pem_of(key))


def leg_to(daemon: Daemon, name: str = "", *, known: bool = True) -> RelayLeg:
    """To a daemon that does not run just now: while it does, its state is its own."""
    secret = load_secret(KeySource.FILE, key_file=daemon.state / "ca.key", environ={})
    store = open_store(daemon.store)
    try:
        with store.write() as tx:
            keyring = open_keyring(tx, secret)
        return leg_on(store, keyring, daemon.state, name, known=known)
    finally:
        store.close()


class PublicPort:
    """A relay's port for devices, as they see it: TLS to ``host:port``, their certificate if they have one."""

    def __init__(self, address: str, fleet_ca: bytes) -> None:
        self._address = address
        self._fleet_ca = fleet_ca

    def call(self, method: str, request: Any, *, certificate: bytes = b"", key: bytes = b"", session: str = "") -> Any:
        credentials = grpc.ssl_channel_credentials(self._fleet_ca, key or None, certificate or None)
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        with grpc.secure_channel(self._address, credentials, options) as channel:
            call = channel.unary_unary(
                f"{SERVICE}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=RESPONSES[method].FromString,
            )
            metadata = (("pharos-session", session),) if session else ()
            return call(request, timeout=_CALL_S, metadata=(*metadata, ("x-pharos-device-fp", "sha256:" + "0" * 64)))

    def leaf(self) -> x509.Certificate:
        """What it presents, unverified: as a client sees it before it knows anything."""
        host, _, port = self._address.rpartition(":")
        return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port)), timeout=10).encode())


class Caravel:
    """One device: its keys, and what it keeps once its first sync succeeded."""

    def __init__(self, name: str = "caravel-device") -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.encryption_key = random_bytes(32)
        self.identity: DeviceIdentity | None = None
        self.signer = b""
        self.document: dict[str, Any] = {}
        self.revision = 0

    def enroll(self, door: Door, url: str) -> dict[str, Any]:
        """Claims and syncs; keeps nothing if either fails."""
        identity = self.claim(door, url)
        document = self.sync(door, identity)
        self.identity = identity
        return document

    def claim(self, door: Door, url: str) -> DeviceIdentity:
        link = parse_link(url)
        reply = door.call("ClaimEnrollment", claim_request(link.token, self))
        assert reply.device_cert_pem and reply.fleet_ca_pem and reply.relay_addr
        assert reply.ca_fingerprint in ("", link.ca)
        certificate = x509.load_pem_x509_certificate(reply.device_cert_pem)
        assert certificate.public_key() == self.key.public_key()
        return DeviceIdentity(
            relay_addr=reply.relay_addr,
            relay_server_name=reply.relay_server_name,
            ca_fingerprint=reply.ca_fingerprint,
            fleet_ca=reply.fleet_ca_pem.decode(),
            device_cert=reply.device_cert_pem.decode(),
            device_key=pem_of(self.key).decode(),
            signing_public_key=reply.signing_public_key,
            encryption_key=self.encryption_key,
        )

    def sync(self, door: Door, identity: DeviceIdentity | None = None) -> dict[str, Any]:
        """Authenticates by certificate alone, fetches, verifies, opens. Returns the profile document."""
        own = identity or self.identity
        assert own is not None
        leaf, key = own.device_cert.encode(), own.device_key.encode()
        session = door.call("Authenticate", pb.AuthenticateRequest(), certificate=leaf, key=key)
        assert session.session_token and not session.keys_enrolled
        reply = door.call("GetProfile", pb.GetProfileRequest(), certificate=leaf, key=key, session=session.session_token)
        assert reply.wrapped_private_key == b""
        plain = open_sealed(read_sealed(reply.ciphertext), own.encryption_key, reply.signing_public_key)
        self.document, self.revision, self.signer = json.loads(plain), reply.revision, reply.signing_public_key
        assert self.document["revision"] == reply.revision
        assert self.document["user"] == session.user_id
        return self.document


def claim_request(token: str, device: Caravel, **other: Any) -> pb.ClaimEnrollmentRequest:
    fields: dict[str, Any] = {
        "token": token,
        "csr_pem": csr_of(device.key, device.name),
        "device_name": device.name,
        "platform": "caravel",
        "encryption_pubkey": x25519_public_key(device.encryption_key),
    }
    return pb.ClaimEnrollmentRequest(**(fields | other))


def csr_of(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64] or "x")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
