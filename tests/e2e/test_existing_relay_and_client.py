"""An existing relay and an existing client against the controller, written from the contracts alone: yamux frames, HTTP/2,
protobuf by hand, the envelope by its primitives (relay-contract.md 1 to 3, accounts-profiles.md 2 to 5).

None of our own code is on their side but the simulated node's and what issues the relay's certificate.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h2.config
import h2.connection
import h2.events
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as xchacha_open

from coxswain.messages.audit import Caller
from coxswain.messages.relays import RelaySetChanged
from coxswain.messages.servers import AddRelay
from coxswain.pki import Leaf
from coxswain.servers import Relay
from coxswain.store import pki as pki_rows
from coxswain.store.servers import insert_relay_cert
from tests.existing_controller import Plain, Tls, Yamux, context
from tests.fleet import LiveFleet, live_fleet
from tests.relays import Pki
from tests.support import free_port

PUBLIC = "relay.example:8443"
CONFIG = f"posture: personal\nstate_dir: ./state\nrelay: {{public_endpoint: '{PUBLIC}'}}\n"
NOT_FOUND, INVALID, UNIMPLEMENTED, UNAUTHENTICATED = 5, 3, 12, 16
B64URL_32 = re.compile(r"[A-Za-z0-9_-]{43}")


# -- protobuf, as accounts-profiles.md 2.1 has the fields


def pack(fields: dict[int, bytes | str]) -> bytes:
    out = b""
    for number, value in fields.items():
        raw = value.encode() if isinstance(value, str) else value
        if raw:
            out += _varint(number << 3 | 2) + _varint(len(raw)) + raw
    return out


def unpack(data: bytes) -> dict[int, Any]:
    found: dict[int, Any] = {}
    while data:
        tag, data = _take_varint(data)
        number, data = _take_varint(data)
        if tag & 7 == 2:
            found[tag >> 3], data = data[:number], data[number:]
        else:
            assert tag & 7 == 0
            found[tag >> 3] = number
    return found


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _take_varint(data: bytes) -> tuple[int, bytes]:
    number, shift = 0, 0
    for at, byte in enumerate(data):
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, data[at + 1 :]
    raise AssertionError("cut off")


# -- the relay


class ExistingRelay:
    """Waits for the controller, opens one stream, and calls AccountSync over it."""

    def __init__(self, directory: Path, listening: socket.socket) -> None:
        connection, _ = listening.accept()
        connection.settimeout(30)
        tls = Tls(Plain(connection), context(directory, "relay.crt", "relay.key", "fleet-ca.crt", server=True), None)
        assert tls.tls.version() == "TLSv1.3" and tls.tls.selected_alpn_protocol() is None
        self.controller = x509.load_der_x509_certificate(tls.tls.getpeercert(binary_form=True) or b"")
        self.mux = Yamux(tls, client=True)
        stream = self.mux.open()
        made = context(directory, "relay.crt", "relay.key", "fleet-ca.crt", alpn=("h2",))
        self._grpc = Tls(stream, made, "coxswain-grpc")
        assert self._grpc.tls.version() == "TLSv1.3" and self._grpc.tls.selected_alpn_protocol() == "h2"
        self.account = x509.load_der_x509_certificate(self._grpc.tls.getpeercert(binary_form=True) or b"")
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self.mux.ping(0)

    def call(self, method: str, body: bytes, **metadata: str) -> tuple[int, dict[int, Any]]:
        """The status, and the fields of the answer."""
        number = self._h2.get_next_available_stream_id()
        path = f"/pharos.account.v1.AccountSync/{method}"
        headers = [
            (":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "coxswain-grpc"),
            ("content-type", "application/grpc+proto"), ("user-agent", "grpc-go/1.80.0"), ("te", "trailers"),
            ("grpc-timeout", "20000000u"), ("grpc-accept-encoding", "identity, deflate, gzip"),
            *((name.replace("_", "-"), value) for name, value in metadata.items()),
        ]  # fmt: skip
        self._h2.send_headers(number, headers)
        self._h2.send_data(number, struct.pack(">BI", 0, len(body)) + body, end_stream=True)
        found: dict[str, str] = {}
        answer, over = b"", False
        while not over:
            self._grpc.sendall(self._h2.data_to_send())
            data = self._grpc.recv()
            assert data, "the controller ended the stream"
            for event in self._h2.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    found |= {str(name): str(value) for name, value in event.headers or ()}
                elif isinstance(event, h2.events.DataReceived):
                    answer += event.data or b""
                    self._h2.acknowledge_received_data(event.flow_controlled_length or 0, number)
                over = over or (isinstance(event, h2.events.StreamEnded) and event.stream_id == number)
                assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated)
        assert found[":status"] == "200" and found["content-type"].startswith("application/grpc")
        assert found.get("grpc-encoding", "identity") == "identity"
        status = int(found["grpc-status"])
        if status:
            assert not answer and found["grpc-message"]
            return status, {}
        flag, length = struct.unpack(">BI", answer[:5])
        assert flag == 0 and length == len(answer) - 5
        return 0, unpack(answer[5:])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    with live_fleet(tmp_path_factory.mktemp("existing"), 1, 13_970, config=CONFIG) as running:
        node = running.controller.node("n0")
        body = {"version": node["version"], "endpoint_ips": ["198.51.100.7", "198.51.100.8"]}
        running.controller.client.call("PATCH", "/api/nodes/n0", body)
        yield running


@pytest.fixture(scope="module")
def relay(fleet: LiveFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExistingRelay]:
    controller, directory = fleet.controller, tmp_path_factory.mktemp("relay")
    with controller.store.read() as tx:
        pki = Pki(pki_rows.load_authorities(tx, controller.keyring))
    certificate = pki.write_relay(directory)
    at = f"127.0.0.1:{free_port()}"
    row = Relay("", "existing", endpoint=at, hostname="127.0.0.1", status="active")
    with socket.create_server(("127.0.0.1", int(at.rpartition(":")[2]))) as listening:
        listening.settimeout(60)
        added = controller.system.ask("servers", AddRelay(Caller("tester", "local"), row), deadline=10).value
        with controller.store.write() as tx:
            insert_relay_cert(tx, added.id, Leaf(certificate), time.time())
        controller.system.tell("relays", RelaySetChanged())
        yield _let_in(directory, listening)


def _let_in(directory: Path, listening: socket.socket) -> ExistingRelay:
    """The controller may have come before it knew the relay's certificate; it comes again."""
    for _ in range(8):
        try:
            return ExistingRelay(directory, listening)
        except ConnectionError:
            continue
    raise AssertionError("the controller does not stay")


# -- the client


class ExistingClient:
    def __init__(self, relay: ExistingRelay, url: str) -> None:
        parts = urlsplit(url)
        assert (parts.scheme, parts.netloc, parts.path) == ("pharosvpn", "enroll", "")
        assert list(parse_qs(parts.query)) == ["ca", "relay", "token"] and "%3A8443" in parts.query
        self.link = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.relay = relay
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.box = X25519PrivateKey.from_private_bytes(hashlib.sha256(url.encode()).digest())  # not clamped
        self.reply: dict[int, Any] = {}

    def request(self, **other: Any) -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ann's phone")])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
        fields = {
            "token": self.link["token"],
            "csr": request.public_bytes(serialization.Encoding.PEM),
            "name": "Ann's phone",
            "platform": "caravel",
            "box": self.box.public_key().public_bytes_raw(),
        }
        return pack(dict(enumerate((fields | other).values(), start=1)))

    def claim(self, **other: Any) -> int:
        status, found = self.relay.call("ClaimEnrollment", self.request(**other))
        self.reply = found or self.reply
        return status

    @property
    def fingerprint(self) -> str:
        return f"sha256:{hashlib.sha256(self.reply[1]).hexdigest()}"

    def sync(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The sealed bundle, and the document in it."""
        status, session = self.relay.call("Authenticate", b"", x_pharos_device_fp=self.fingerprint)
        assert status == 0 and B64URL_32.fullmatch(session[1].decode()) and session[2].startswith(b"usr_")
        assert not session.get(3)
        metadata = {"x_pharos_device_fp": self.fingerprint, "pharos_session": session[1].decode()}
        status, got = self.relay.call("GetProfile", b"", **metadata)
        assert status == 0 and not got.get(4)
        bundle: dict[str, Any] = json.loads(got[1])
        document = self.open(bundle, got[3])
        assert document["revision"] == got[2]
        return bundle, document

    def open(self, bundle: dict[str, Any], signer: bytes) -> dict[str, Any]:
        assert list(bundle) == ["v", "epk", "wn", "wk", "n", "ct", "sig"] and bundle["v"] == 1
        raw = {name: base64.b64decode(bundle[name], validate=True) for name in list(bundle)[1:]}
        sizes = {name: len(value) for name, value in raw.items() if name != "ct"}
        assert sizes == {"epk": 32, "wn": 24, "wk": 48, "n": 24, "sig": 64}
        parts = ",".join(f'"{name}":"{bundle[name]}"' for name in ("epk", "wn", "wk", "n", "ct"))
        Ed25519PublicKey.from_public_bytes(signer).verify(raw["sig"], f'{{"v":1,{parts},"sig":null}}'.encode())
        shared = self.box.exchange(X25519PublicKey.from_public_bytes(raw["epk"]))
        wrap = HKDF(hashes.SHA256(), 32, salt=None, info=b"pharosvpn/profile/keywrap/v1").derive(shared)
        data_key = xchacha_open(raw["wk"], None, raw["wn"], wrap)
        plain = xchacha_open(raw["ct"], None, raw["n"], data_key)
        found: dict[str, Any] = json.loads(plain)
        return found


@pytest.fixture
def client(fleet: LiveFleet, relay: ExistingRelay) -> ExistingClient:
    user = fleet.controller.client.post("/api/users", {"name": "Ann"})["id"]
    invited = fleet.controller.client.post(f"/api/users/{user}/invite")
    assert set(invited) == {"url", "qr_png_base64", "expires_at", "ticket_id"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", invited["expires_at"])
    assert re.fullmatch(r"tkt_[a-z2-7]{16}", invited["ticket_id"])
    png = base64.b64decode(invited["qr_png_base64"], validate=True)
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", png[16:24]) == (512, 512)
    return ExistingClient(relay, invited["url"])


def test_each_end_of_a_tunnel_shows_the_certificate_that_the_contract_says(relay: ExistingRelay) -> None:
    usages = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    for certificate, name, organization, usage in (
        (relay.controller, "PharosVPN Relay", "PharosVPN Relay", set(usages)),
        (relay.account, "coxswain-grpc", "PharosVPN", {ExtendedKeyUsageOID.SERVER_AUTH}),
    ):
        subject = {attribute.oid: attribute.value for attribute in certificate.subject}
        assert subject == {NameOID.COMMON_NAME: name, NameOID.ORGANIZATION_NAME: organization}
        assert set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == usage
        assert "PharosVPN Fleet CA" in certificate.issuer.rfc4514_string()
    names = relay.controller.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "relay.example"}
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    names = relay.account.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["coxswain-grpc"] and len(list(names)) == 1


def test_a_claim_that_is_no_good_uses_nothing_up(client: ExistingClient) -> None:
    for other in ({"token": ""}, {"csr": b""}, {"csr": b"no request"}, {"box": bytes(31)}, {"box": b""}):
        assert client.claim(**other) == INVALID, other
    assert client.claim(token="A" * 43) == UNAUTHENTICATED
    assert client.claim() == 0
    client.sync()
    assert client.claim() == UNAUTHENTICATED  # it is used


def test_a_claim_answers_with_what_a_device_needs(client: ExistingClient) -> None:
    assert client.claim(name="", platform="") == 0
    assert set(client.reply) == {1, 2, 3, 4, 5, 6}
    leaf, fleet = (x509.load_pem_x509_certificates(client.reply[n]) for n in (1, 2))
    assert (client.reply[3], client.reply[4]) == (PUBLIC.encode(), b"relay.example")
    assert client.reply[5].decode() == client.link["ca"] and re.fullmatch(r"[0-9a-f]{64}", client.link["ca"])
    assert len(client.reply[6]) == 32 and len(leaf) == 1
    assert [c.subject.rfc4514_string() for c in fleet] == ["CN=PharosVPN Fleet CA,O=PharosVPN"]
    assert leaf[0].public_key() == client.key.public_key()
    subject = {attribute.oid: attribute.value for attribute in leaf[0].subject}
    assert subject == {NameOID.COMMON_NAME: "caravel device", NameOID.ORGANIZATION_NAME: "PharosVPN Device"}
    assert "PharosVPN Device CA" in leaf[0].issuer.rfc4514_string()
    kinds = {type(extension.value) for extension in leaf[0].extensions}
    assert x509.SubjectAlternativeName not in kinds
    usage = leaf[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (leaf[0].not_valid_after_utc - leaf[0].not_valid_before_utc).total_seconds() == 365 * 86_400 + 300
    assert client.reply[1].count(b"\n") == client.reply[1].rstrip().count(b"\n") + 1 and b"\r" not in client.reply[1]


def test_who_calls_is_told_apart_as_the_contract_says(client: ExistingClient, relay: ExistingRelay) -> None:
    assert client.claim() == 0
    assert relay.call("Authenticate", b"")[0] == UNAUTHENTICATED
    assert relay.call("Authenticate", pack({1: "nobody@example.org", 2: "wrong wrong"}))[0] == UNAUTHENTICATED
    assert relay.call("GetProfile", b"")[0] == UNAUTHENTICATED
    assert relay.call("EnrollKeys", b"")[0] == UNAUTHENTICATED
    assert relay.call("GetProfile", b"", pharos_session="A" * 43)[0] == UNAUTHENTICATED
    assert relay.call("Nothing", b"")[0] == UNIMPLEMENTED
    for fields in ({}, {1: bytes(range(32))}, {2: b"blob"}):
        assert relay.call("EnrollKeys", pack(fields), x_pharos_device_fp=client.fingerprint)[0] == INVALID
    status, _ = relay.call("GetProfile", b"", x_pharos_device_fp=client.fingerprint)
    assert status == 0  # the certificate alone is enough
    assert relay.call("GetProfile", b"", x_pharos_device_fp=client.fingerprint, pharos_session="junk")[0] == 0


def test_a_bundle_opens_and_every_key_of_its_document_is_what_clients_read(fleet: LiveFleet, client: ExistingClient) -> None:
    assert client.claim() == 0
    _, document = client.sync()
    assert document["fleet_id"] == "" and document["revision"] == 1
    assert {"fleet_id", "user", "revision", "issued_at", "expires_at", "profiles"} == set(document) - {"control"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", document["issued_at"])
    assert document["expires_at"] == "0001-01-01T00:00:00Z"
    (profile,) = document["profiles"]
    assert (profile["id"], profile["name"], profile["protocol"]) == (
        "auto-amneziawg", "All Nodes (AmneziaWG)", "amneziawg",
    )  # fmt: skip
    assert "path" not in profile and profile.get("mtu", 1420) is not None
    (node,) = profile["nodes"]
    assert set(node) == {"id", "name", "region", "endpoints", "protocols"}
    assert re.fullmatch(r"nod_[a-z2-7]{16}", node["id"]) and node["endpoints"] == ["198.51.100.7", "198.51.100.8"]
    (protocol,) = node["protocols"]
    assert (protocol["type"], protocol["v"]) == ("amneziawg", 2)
    params = protocol["params"]
    assert set(params) - {"address_v6"} == {
        "private_key", "address", "public_key", "preshared_key", "endpoints", "rotation", "allowed_ips", "obfuscation",
    }  # fmt: skip
    private = base64.b64decode(params["private_key"], validate=True)
    assert private[0] & 7 == 0 and private[31] & 192 == 64  # clamped
    assert all(len(base64.b64decode(params[name], validate=True)) == 32 for name in ("public_key", "preshared_key"))
    assert re.fullmatch(r"10\.86\.\d+\.\d+/32", params["address"])
    assert params["endpoints"] == [{"ip": ip, "port_min": 443, "port_max": 443} for ip in node["endpoints"]]
    assert set(params["rotation"]) == {"enabled", "interval_seconds", "jitter_seconds"}
    assert params["allowed_ips"] == ["0.0.0.0/0", "::/0"]
    numbers = params["obfuscation"]
    assert [name for name in numbers if name[0] != "i"] == [
        "jc",
        "jmin",
        "jmax",
        "s1",
        "s2",
        "s3",
        "s4",
        "h1",
        "h2",
        "h3",
        "h4",
    ]
    assert all(type(value) is int and 0 <= value < 2**32 for name, value in numbers.items() if name[0] != "i")
    assert all(isinstance(value, str) and value for name, value in numbers.items() if name[0] == "i")
    assert type(document["revision"]) is int and type(params["rotation"]["interval_seconds"]) is int


def test_a_second_device_of_a_user_and_a_session_without_one(client: ExistingClient, relay: ExistingRelay) -> None:
    """A session is for who has no certificate; there is no profile for an account without a device (2.4)."""
    assert client.claim() == 0
    first, document = client.sync()
    again, same = client.sync()
    assert document == same and first == again
    status, session = relay.call("Authenticate", b"", x_pharos_device_fp=client.fingerprint)
    assert status == 0
    status, _ = relay.call("GetProfile", b"", pharos_session=session[1].decode())
    assert status in (0, NOT_FOUND)
