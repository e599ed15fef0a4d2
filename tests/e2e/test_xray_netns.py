"""REALITY through a real ``xray``, on hosts that have one: its clients get out, and not into the node's own networks.

Without the program this module has no test: how the agent drives it is tested with a stand-in (``test_agent_xray.py``).

    client (xray, SOCKS) ── node (cox-node, xray) ── internet (decoy, web server)
"""

import contextlib
import datetime as dt
import json
import shutil
import socket
import ssl
import struct
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coxswain.wire.node_control import RpcFailed
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.agents import SERVER, served
from tests.support import eventually

pytestmark = pytest.mark.netns

XRAY = pb.PROTOCOL_XRAY_REALITY
UUID = "0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c55"
DECOY = "decoy.test"


def decoy(space, directory):
    """A TLS 1.3 server that REALITY borrows its face from."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DECOY)])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(9))
    certificate = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(DECOY)]), critical=False)
    pem = certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "decoy.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "decoy.pem")
    listener = space.call(lambda: socket.create_server((SERVER, 9443)))

    def serve(connection):
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                tls.recv(1)
        except OSError:
            pass

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener


def through_socks(host, port):
    """What a server at ``host``, an address or a name, sends through the client's proxy; None: it was not reached."""
    try:
        with socket.create_connection(("127.0.0.1", 1080), timeout=5) as connection:
            connection.settimeout(5)
            connection.sendall(b"\x05\x01\x00")
            connection.recv(2)
            try:
                target = b"\x01" + socket.inet_aton(host)
            except OSError:
                target = b"\x03" + bytes([len(host)]) + host.encode()
            connection.sendall(b"\x05\x01\x00" + target + struct.pack("!H", port))
            connection.recv(10)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
            return received or None
    except OSError:
        return None


def client_document(node, space_port=443):
    reality = {"serverName": DECOY, "publicKey": node.status().xray.public_key, "shortId": "", "fingerprint": "chrome"}
    user = {"id": UUID, "flow": "xtls-rprx-vision", "encryption": "none"}
    return {
        "log": {"loglevel": "warning"},
        "inbounds": [{"listen": "127.0.0.1", "port": 1080, "protocol": "socks", "settings": {"auth": "noauth"}}],
        "outbounds": [
            {
                "protocol": "vless",
                "settings": {"vnext": [{"address": "192.0.11.1", "port": space_port, "users": [user]}]},
                "streamSettings": {"network": "tcp", "security": "reality", "realitySettings": reality},
            }
        ],
    }


def reality(revision, **fields):
    given = {"dest": f"{SERVER}:9443", "server_names": [DECOY], "short_ids": [""], "port": 443} | fields
    peers = [pb.Peer(protocol=XRAY, public_key=UUID, flow="xtls-rprx-vision")]
    message = pb.XRayRealityConfig(**({"peers": peers} | given))
    return pb.PushConfigRequest(protocol=XRAY, revision=revision, config=message.SerializeToString())


def check(world, tmp_path):
    node = world.node()
    client = world.client(node)

    def push(request):
        return node.wait(node.control.push_config(request))

    def reaches_the_web():
        saw = served(world.internet, b"here")
        got = client.space.call(lambda: through_socks(SERVER, 8000))
        if got is None:  # lets the server end
            with contextlib.suppress(OSError):  # it has ended: somebody came, and went without an answer
                world.internet.call(lambda: socket.create_connection((SERVER, 8000), timeout=5).close())
        return got == b"here" and saw() == "198.51.100.1"

    with decoy(world.internet, tmp_path):
        assert push(reality(1)).reloaded
        status = node.status().services[1]
        assert (status.running, status.detail) == (True, "REALITY :443")
        conf = tmp_path / "client.json"
        conf.write_text(json.dumps(client_document(node)))
        client.space.spawn(["xray", "run", "-c", str(conf)], log=tmp_path / "client.log")
        assert eventually(reaches_the_web, timeout=30), (tmp_path / "client.log").read_text() + node.log.read_text()
        # Not the node's own: by address, and by a name that leads there.
        inside = node.space.call(lambda: socket.create_server(("127.0.0.1", 8000)))
        threading.Thread(target=_say, args=(inside, b"secret"), daemon=True).start()
        for target in ("127.0.0.1", "localhost", "::ffff:127.0.0.1"):
            assert client.space.call(lambda target=target: through_socks(target, 8000)) is None
        inside.close()
        # A restart of the agent brings it back with its clients.
        assert node.stop() == 0
        assert not reaches_the_web(), "it ends with the agent"
        node.start()
        assert eventually(reaches_the_web, timeout=30)
        with pytest.raises(RpcFailed):
            push(reality(2, dest="nonsense"))
        assert reaches_the_web()
        # Shut out.
        assert node.wait(node.control.remove_peer(XRAY, UUID)).applied
        assert not reaches_the_web()


def _say(listener, text):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(text)


if shutil.which("xray"):

    def test_clients_get_out_and_not_in(world, tmp_path):
        check(world, tmp_path)
