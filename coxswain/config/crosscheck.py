"""What only shows when keys are looked at together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from coxswain.config.keys import is_loopback

__all__ = ["together"]

_MAX_SOCKET_BYTES = 107
"""unix(7): sun_path holds 108 bytes with the final zero."""


def together(values: Mapping[str, Any], refused: set[str]) -> list[str]:
    """What only shows when keys are looked at together; keys that are wrong by themselves are left out."""
    problems = []

    def sound(*names: str) -> bool:
        return refused.isdisjoint(names)

    if sound("backend", "database.dsn"):
        backend, dsn = values["backend"].lower(), values["database.dsn"]
        if backend in ("postgres", "postgresql", "pg") and not dsn:
            problems.append(
                f"backend: {values['backend']} needs a server, but database.dsn is empty; give the DSN (postgres://...), "
                "or use sqlite"
            )
        if backend == "sqlite" and dsn:
            problems.append("backend is sqlite, but database.dsn names a Postgres server; leave one of them out")
    if sound("relay.remote", "relay.embedded") and values["relay.remote"] and not values["relay.embedded"]:
        problems.append(
            "relay.remote: true needs relay.embedded, which is false; set that to true, or relay.remote to false"
        )
    if sound("siem.tls_cert", "siem.tls_key") and bool(values["siem.tls_cert"]) != bool(values["siem.tls_key"]):
        missing = "siem.tls_key" if values["siem.tls_cert"] else "siem.tls_cert"
        problems.append(f"siem.tls_cert and siem.tls_key go together; {missing} is missing")
    if sound("siem.tls_cert", "siem.client_ca") and values["siem.client_ca"] and not values["siem.tls_cert"]:
        problems.append("siem.client_ca needs TLS; give siem.tls_cert and siem.tls_key, or leave it out")
    listen, encrypted = values["siem.listen"], values["siem.tls_cert"]
    if sound("siem.listen", "siem.tls_cert") and listen and not encrypted and not is_loopback(listen):
        problems.append(
            f"siem.listen: {listen} can be reached from outside, and would not be encrypted; give siem.tls_cert and "
            "siem.tls_key, or a loopback address such as 127.0.0.1:8444"
        )
    listen, wanted = values["ui.listen"], values["ui.allow_remote"] or values["ui.behind_tls_proxy"]
    if sound("ui.listen", "ui.allow_remote", "ui.behind_tls_proxy") and not wanted and not is_loopback(listen):
        problems.append(
            f"ui.listen: {listen} can be reached from outside, and what it serves is not encrypted; it takes a loopback "
            "address such as 127.0.0.1:8443; any, with ui.behind_tls_proxy; or any, with ui.allow_remote, if you know what "
            "you do"
        )
    if sound("admin.password", "admin.password_hash") and values["admin.password"] and values["admin.password_hash"]:
        problems.append("admin.password and admin.password_hash say the same thing twice; keep the hash")
    if sound("control.socket", "state_dir"):
        socket = values["control.socket"] or f"{values['state_dir']}/control.sock"
        length = len(os.fsencode(socket))
        if length > _MAX_SOCKET_BYTES:
            problems.append(
                f"control.socket: {socket[:80]!r} is {length} bytes long; a socket's path has at most {_MAX_SOCKET_BYTES}: "
                "set control.socket to a shorter one"
            )
    return problems
