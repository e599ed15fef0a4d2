"""The certificate of the SIEM stream, its key, and whose clients are let in: files that may be replaced while it runs."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any, cast

import grpc

from coxswain.errors import LoosePermissions, Refused

__all__ = ["MonitorTls"]

_log = logging.getLogger(__name__)


class MonitorTls:
    """``client_ca`` None: clients need no certificate; else one that it has signed."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._files = (("siem.tls_cert", certificate), ("siem.tls_key", key)) + (
            () if client_ca is None else (("siem.client_ca", client_ca),)
        )
        self._seen: object = None

    def credentials(self) -> grpc.ServerCredentials:
        """A new handshake uses what is in the files then; connections stay.

        Raises ``Refused`` if they cannot be used now, naming the key. Later on, what cannot be used leaves the last ones in
        force.
        """
        first = self._read()
        return cast(
            "grpc.ServerCredentials",
            grpc.dynamic_ssl_server_credentials(first, self._changed, require_client_authentication=len(self._files) == 3),
        )

    def _changed(self) -> Any:
        """Called by gRPC for each handshake, on a thread of its own."""
        try:
            if self._stamps() == self._seen:
                return None
            found = self._read()
        except Refused as error:
            _log.warning("SIEM stream: its certificate stays as it was: %s", error)
            return None
        _log.info("SIEM stream: certificate read again")
        return found

    def _read(self) -> Any:
        stamps = self._stamps()
        texts = []
        for name, path in self._files:
            try:
                texts.append(path.read_bytes())
            except OSError as error:
                raise Refused(f"{name}: {path} cannot be read: {error.strerror}") from None
            if name == "siem.tls_key" and path.stat().st_mode & 0o077:
                raise LoosePermissions(f"{name}: others may read {path}", remedy=f"chmod 600 {path}")
        self._check()
        self._seen = stamps
        roots = texts[2] if len(texts) == 3 else None
        return grpc.ssl_server_certificate_configuration([(texts[1], texts[0])], root_certificates=roots)

    def _check(self) -> None:
        """Here, because gRPC would only say that it could not listen."""
        names = dict(self._files)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(names["siem.tls_cert"], names["siem.tls_key"], password=lambda: b"")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise Refused(f"siem.tls_cert and siem.tls_key are no certificate with its key: {reason}") from None
        if "siem.client_ca" in names:
            try:
                context.load_verify_locations(names["siem.client_ca"])
            except (OSError, ValueError):
                raise Refused(f"siem.client_ca: there is no certificate in {names['siem.client_ca']}") from None

    def _stamps(self) -> object:
        found = []
        for name, path in self._files:
            try:
                stat = path.stat()
            except OSError as error:
                raise Refused(f"{name}: {path} cannot be read: {error.strerror}") from None
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return found
