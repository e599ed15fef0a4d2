"""A daemon at the other end of a network: ``--url``, ``--token-file`` and their environment variables.

Only imported when a command is to go there; TLS is half of its time.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from coxswain.errors import CoxswainError, DaemonNotRunning, InvalidInput, LoosePermissions, Refused

__all__ = ["Remote", "WebPlace", "web_place"]

_LONGEST_TOKEN = 4096
CONNECT_S = 10.0
"""For the connection, and its TLS."""


@dataclass(frozen=True)
class Remote:
    """What the command line says about it; empty strings are what it does not say."""

    url: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    ca_cert: str = ""


class _Impatient(http.client.HTTPConnection):
    """An answer may take its time, to be let in must not: a port that swallows everything would look like a slow daemon."""

    def connect(self) -> None:
        patience, self.timeout = self.timeout, min(self.timeout or CONNECT_S, CONNECT_S)
        try:
            super().connect()
        except TimeoutError:
            raise DaemonNotRunning(
                f"{self.host}:{self.port} lets nobody in within {CONNECT_S:g} s",
                remedy="Are host, port and scheme (http, https) of --url right, and does no firewall stand in between?",
            ) from None
        finally:
            self.timeout = patience
        self.sock.settimeout(patience)


class _Connection(_Impatient):
    pass


class _TlsConnection(_Impatient, http.client.HTTPSConnection):
    pass


class WebPlace:
    """A daemon's address, with the token that opens it (``coxswain.cli.client.Place``)."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._context = context
        self.name = f"{parts.scheme}://{parts.netloc}"
        self.prefix = parts.path.rstrip("/")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __repr__(self) -> str:
        return f"WebPlace({self.name})"

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._context is None:
            return _Connection(self._host, self._port, timeout=timeout)
        return _TlsConnection(self._host, self._port, timeout=timeout, context=self._context)

    def explain(self, error: OSError) -> CoxswainError | None:
        match error:
            case ssl.SSLCertVerificationError():
                return Refused(
                    f"the certificate of {self.name} is not trusted: {error.verify_message}",
                    remedy="If it is your own CA's, name that with --ca-cert FILE (COX_CA_CERT).",
                )
            case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                return None
            case ssl.SSLError():
                return DaemonNotRunning(
                    f"{self.name} does not speak TLS as it should: {error.reason or error}",
                    remedy="Is the port right, and is it https there?",
                )
            case socket.gaierror():
                return DaemonNotRunning(
                    f"the name {self._host} is not known: {error.strerror}", remedy="Look at --url (COX_URL)."
                )
            case _:
                return None


def web_place(remote: Remote, environ: Mapping[str, str]) -> WebPlace:
    """Where to go, by the command line and, for what it does not say, the environment.

    Raises:
        InvalidInput: the URL, the token or the CA's file cannot be used.
        LoosePermissions: others can read the token's file.
        Refused: the token would go over the network in clear.
    """
    url = remote.url or environ.get("COX_URL", "")
    scheme = _check_url(url, environ)
    context = None
    if scheme == "https":
        ca_cert = remote.ca_cert or environ.get("COX_CA_CERT", "")
        try:
            context = ssl.create_default_context(cafile=ca_cert or None)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"ca-cert: {ca_cert} cannot be used: {error.strerror or error}") from None
    return WebPlace(url, _token(remote, environ), context)


def _check_url(url: str, environ: Mapping[str, str]) -> str:
    try:
        parts = urlsplit(url)
        is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_sound = (
            is_sound and not (parts.query or parts.fragment) and url.isascii() and url.isprintable() and " " not in url
        )
    except ValueError:
        is_sound = False
    if not is_sound:
        raise InvalidInput(f"url: {url[:200]!r} is not accepted; it takes https://host[:port], or http:// on this machine")
    if parts.username is not None:
        raise InvalidInput(
            "url: holds a user or password; it takes none", remedy="Give a token: COX_TOKEN, or --token-file."
        )
    if parts.scheme == "http" and not _is_loopback(parts.hostname or "") and environ.get("COX_ALLOW_PLAIN_HTTP") != "1":
        raise Refused(
            f"url: {parts.scheme}://{parts.netloc} is not this machine, and the token would go there in clear",
            remedy="Use https, or a tunnel: ssh -L 8443:127.0.0.1:8443 HOST and http://127.0.0.1:8443. If the network in "
            "between is encrypted, set COX_ALLOW_PLAIN_HTTP=1.",
        )
    return parts.scheme


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _token(remote: Remote, environ: Mapping[str, str]) -> str:
    """The command line goes first; there and in the environment, a file after the token itself."""
    if remote.token:
        return _checked(remote.token, "--token")
    if remote.token_file:
        return _from_file(Path(remote.token_file))
    if environ.get("COX_TOKEN"):
        return _checked(environ["COX_TOKEN"], "COX_TOKEN")
    if environ.get("COX_TOKEN_FILE"):
        return _from_file(Path(environ["COX_TOKEN_FILE"]))
    raise InvalidInput(
        "token: there is none, and the daemon at the other end asks for one",
        remedy="Make one there with: cox tokens create NAME, and give it in COX_TOKEN, or in a file with --token-file.",
    )


def _from_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(_LONGEST_TOKEN + 1)
    except OSError as error:
        raise InvalidInput(f"token-file: {path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise LoosePermissions(f"{path} can be read by others (mode {mode:04o})", remedy=f"chmod 600 {path}")
    return _checked(raw.decode("ascii", "replace"), str(path))


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not token or len(token) > _LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidInput(f"token: {where} does not hold one; it takes the secret that cox tokens create printed")
    return token
