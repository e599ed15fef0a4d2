"""``cox --url``: the same commands, over TLS, to a real daemon behind a forwarder; and all that can be wrong there."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from actors.main import cli
from coxswain.cli import remote
from coxswain.cli.client import Client
from coxswain.cli.remote import Remote, web_place
from coxswain.errors import CoxswainError, InvalidInput, LoosePermissions, Refused
from tests.fleet import Controller

TOKEN = "cox_0123456789abcdef"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COX_URL", "COX_TOKEN", "COX_TOKEN_FILE", "COX_CA_CERT", "COX_CONFIG", "COX_ALLOW_PLAIN_HTTP"):
        monkeypatch.delenv(name, raising=False)


class Forwarder:
    """Takes connections on loopback, with TLS if there is a context, and passes them on to a unix socket."""

    def __init__(self, target: Path, context: ssl.SSLContext | None) -> None:
        self._target = target
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heads: list[bytes] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            stack.callback(client.close)
            upstream = stack.enter_context(socket.socket(socket.AF_UNIX))
            upstream.connect(str(self._target))
            self._open.append(client)
            back = threading.Thread(target=self._pump, args=(upstream, client), daemon=True)
            back.start()
            while data := client.recv(65536):
                self.heads.append(data)
                upstream.sendall(data)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def cut(self) -> None:
        """Ends every connection, as a proxy does with idle ones."""
        for client in self._open:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


def certificate(directory: Path, name: str, *, days: int = 1) -> Path:
    """A certificate that is its own CA, with its key, for loopback."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=30)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=30 + days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    encoding, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(made.public_bytes(encoding) + key.private_bytes(encoding, pkcs8, serialization.NoEncryption()))
    return path


@contextlib.contextmanager
def forwarding(target: Path, cert: Path | None) -> Iterator[Forwarder]:
    context = None
    if cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert)
    forwarder = Forwarder(target, context)
    try:
        yield forwarder
    finally:
        forwarder.close()


@pytest.fixture
def cert(tmp_path: Path) -> Path:
    return certificate(tmp_path, "daemon")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def tls(controller: Controller, cert: Path) -> Iterator[Forwarder]:
    with forwarding(controller.home / "control.sock", cert) as forwarder:
        yield forwarder


def run(*arguments: str, code: int = 0, **environ: str) -> Result:
    result = CliRunner().invoke(cli, [*arguments], prog_name="cox", env=environ)
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


def test_commands_are_the_same_over_the_network(
    tls: Forwarder, cert: Path, token_file: Path, controller: Controller
) -> None:
    where = ("--url", f"https://127.0.0.1:{tls.port}", "--token-file", str(token_file), "--ca-cert", str(cert))
    added = json.loads(run(*where, "nodes", "add", "far-away", "--addr", "192.0.2.1", "--json").stdout)
    assert controller.node("far-away")["id"] == added["id"]
    assert "far-away" in run(*where, "nodes", "list").stdout
    assert "all running" in run(*where, "status").stdout
    assert "event_hub" in run(*where, "tree").stdout
    assert json.loads(run(*where, "config", "show", "--running", "--json").stdout)["posture"]["value"] == "personal"
    run(*where, "nodes", "remove", "far-away", "--yes")
    assert "no node" in run(*where, "nodes", "show", "far-away", code=4).stderr
    assert f"Authorization: Bearer {TOKEN}\r\n".encode() in tls.heads[0]


def test_the_environment_says_it_too(tls: Forwarder, cert: Path, token_file: Path, controller: Controller) -> None:
    environ = {"COX_URL": f"https://localhost:{tls.port}/", "COX_CA_CERT": str(cert)}
    for token in ({"COX_TOKEN": TOKEN}, {"COX_TOKEN_FILE": str(token_file)}):
        assert "all running" in run("status", **environ, **token).stdout
    before = len(tls.heads)
    run("status", "--config", str(controller.home.parent / "cox.yaml"), **environ, COX_TOKEN=TOKEN)
    assert len(tls.heads) == before, "a configuration that is named goes first"


def test_a_token_on_the_command_line_is_warned_of(tls: Forwarder, cert: Path) -> None:
    result = run("--url", f"https://localhost:{tls.port}", "--ca-cert", str(cert), "--token", TOKEN, "status")
    assert "can be seen by every user" in result.stderr and TOKEN not in result.stderr


def test_plain_http_is_for_this_machine(controller: Controller) -> None:
    with forwarding(controller.home / "control.sock", None) as plain:
        assert "all running" in run("--url", f"http://127.0.0.1:{plain.port}", "status", COX_TOKEN=TOKEN).stdout
    with pytest.raises(Refused, match="in clear") as caught:
        web_place(Remote("http://cox.example"), {"COX_TOKEN": TOKEN})
    assert "ssh -L" in caught.value.remedy
    web_place(Remote("http://10.0.0.1"), {"COX_TOKEN": TOKEN, "COX_ALLOW_PLAIN_HTTP": "1"})


def test_a_certificate_that_is_not_trusted_is_refused_before_the_token_goes(tls: Forwarder, tmp_path: Path) -> None:
    other = certificate(tmp_path, "other")
    for trusted in ({}, {"COX_CA_CERT": str(other)}):
        result = run("status", code=6, COX_URL=f"https://localhost:{tls.port}", COX_TOKEN=TOKEN, **trusted)
        assert "is not trusted" in result.stderr and "--ca-cert" in result.stderr
    assert not tls.heads


def test_an_expired_certificate_is_refused(controller: Controller, tmp_path: Path) -> None:
    old = certificate(tmp_path, "old", days=-1)
    with forwarding(controller.home / "control.sock", old) as expired:
        environ = {"COX_URL": f"https://localhost:{expired.port}", "COX_TOKEN": TOKEN, "COX_CA_CERT": str(old)}
        assert "expired" in run("status", code=6, **environ).stderr


def test_what_is_not_there_or_not_tls(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "no daemon answers" in run("status", code=3, COX_URL=f"https://localhost:{port}", COX_TOKEN=TOKEN).stderr
    with forwarding(controller.home / "control.sock", None) as plain:
        result = run("status", code=3, COX_URL=f"https://localhost:{plain.port}", COX_TOKEN=TOKEN)
        assert "lets nobody in" in result.stderr and "scheme" in result.stderr
    with forwarding(controller.home / "absent", None) as hangs_up:
        run("status", code=3, COX_URL=f"https://localhost:{hangs_up.port}", COX_TOKEN=TOKEN)
    result = run("status", code=3, COX_URL="https://no-such-host.invalid", COX_TOKEN=TOKEN)
    assert "no-such-host.invalid is not known" in result.stderr


def test_a_question_is_asked_again_when_a_proxy_ended_an_idle_connection(tls: Forwarder, cert: Path) -> None:
    client = Client(web_place(Remote(f"https://localhost:{tls.port}", TOKEN, "", str(cert)), {}))
    first = client.get("/api/version")
    tls.cut()
    assert client.get("/api/version") == first
    tls.cut()
    with pytest.raises(CoxswainError, match="went away"):
        client.post("/api/nodes", {"name": "once", "control_addr": "192.0.2.1"})


def test_the_path_of_the_url_goes_before_every_route(tls: Forwarder, cert: Path) -> None:
    client = Client(web_place(Remote(f"https://localhost:{tls.port}/cox/", TOKEN, "", str(cert)), {}))
    with pytest.raises(CoxswainError):
        client.get("/api/version")
    assert tls.heads[0].startswith(b"GET /cox/api/version ")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cox.example",
        "ftp://h",
        "https://",
        "https://h:99999",
        "https://u:p@h",
        "https://h/?x",
        "https://h h",
        "https://[::1",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"^url: "):
        web_place(Remote(url, TOKEN), {})


def test_tokens_that_are_none(tmp_path: Path, token_file: Path) -> None:
    url = "https://cox.example"
    with pytest.raises(InvalidInput, match="there is none") as caught:
        web_place(Remote(url), {})
    assert "cox tokens create" in caught.value.remedy
    for bad in ("a b", "a\nb", "é", " "):
        with pytest.raises(InvalidInput, match="does not hold one"):
            web_place(Remote(url, bad), {})
    token_file.chmod(0o644)
    with pytest.raises(LoosePermissions, match="0644"):
        web_place(Remote(url, "", str(token_file)), {})
    with pytest.raises(InvalidInput, match="cannot be read"):
        web_place(Remote(url, "", str(tmp_path / "absent")), {})
    (tmp_path / "huge").write_text("x" * 10_000)
    (tmp_path / "huge").chmod(0o600)
    with pytest.raises(InvalidInput, match="does not hold one"):
        web_place(Remote(url, "", str(tmp_path / "huge")), {})
    assert TOKEN not in repr(Remote(url, TOKEN)) + repr(web_place(Remote(url, TOKEN), {}))


def test_options_that_go_with_a_url_only() -> None:
    assert "go with --url" in run("--token-file", "x", "status", code=2).stderr
