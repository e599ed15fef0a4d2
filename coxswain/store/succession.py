"""Rows of intermediates that are handed over. Plain functions of a transaction."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from coxswain.clock import to_micros
from coxswain.keyring import Keyring
from coxswain.pki.certificates import Authority, Role
from coxswain.pki.succession import HEIRS, Line, heir_due, make_heir, succession_due
from coxswain.store.api import Tx
from coxswain.store.pki import load_authorities, open_authority_key, put_authority, seal_authority_key

__all__ = ["advance", "load_lines", "nodes_without"]


def load_lines(tx: Tx, keyring: Keyring, now: float) -> tuple[Authority, dict[Role, Line]]:
    """The root and the intermediates. Raises ``KeyUnavailable``."""
    authorities = load_authorities(tx, keyring)
    lines = {role: Line(authorities[role]) for role in HEIRS}
    rows = tx.execute(
        "SELECT role, cert_pem, key_sealed FROM authority_lines WHERE not_after > ? ORDER BY created_at DESC",
        (to_micros(now),),
    )
    for role_name, pem, sealed in rows:
        line, certificate = lines[Role(role_name)], x509.load_pem_x509_certificate(pem.encode())
        if sealed is None:
            lines[line.current.role] = Line(line.current, line.heir, (*line.retired, certificate))
        else:
            key = open_authority_key(keyring, bytes(sealed), line.current.role, certificate)
            lines[line.current.role] = Line(line.current, Authority(line.current.role, certificate, key), line.retired)
    return authorities[Role.ROOT], lines


def advance(
    tx: Tx, keyring: Keyring, root: Authority, lines: Mapping[Role, Line], now: float
) -> list[tuple[Role, str, dict[str, str]]]:
    """Takes every step of a succession that is due. Returns them: role, ``heir`` or ``handover``, details for the audit."""
    taken: list[tuple[Role, str, dict[str, str]]] = []
    for role, line in lines.items():
        if heir_due(line, root, now):
            heir = make_heir(line, root, now)
            _insert(tx, heir.certificate, role, now, seal_authority_key(keyring, heir))
            taken.append((role, "heir", {"serial": str(heir.certificate.serial_number)}))
        elif line.heir is not None and succession_due(line, now) and _heir_is_known(tx, line, now):
            _hand_over(tx, keyring, line, line.heir, now)
            heirs, before = line.heir.certificate.serial_number, line.current.certificate.serial_number
            serials = {"serial": str(heirs), "from": str(before)}
            taken.append((role, "handover", serials))
    return taken


def nodes_without(tx: Tx, line: Line, now: float) -> list[str]:
    """Names of enabled nodes whose newest valid certificate was issued before the newest member of ``line`` was there: they
    were not given it to trust yet. Those whose certificate has expired are cut off already, and do not count.
    """
    rows = tx.execute(
        "SELECT n.name FROM nodes n JOIN node_certs c ON c.node_id = n.id WHERE n.enabled = 1 AND c.revoked_at IS NULL "
        "AND c.not_after > ? GROUP BY n.id, n.name HAVING max(c.not_before) < ? ORDER BY n.name",
        (to_micros(now), to_micros(line.published_at)),
    )
    return [row[0] for row in rows]


def _heir_is_known(tx: Tx, line: Line, now: float) -> bool:
    """The controller's new certificate would be refused by a node that was not given its issuer. One that has ended is
    refused by all of them.
    """
    if line.current.role is not Role.CONTROL:
        return True
    ended = now >= line.current.certificate.not_valid_after_utc.timestamp()
    return ended or not nodes_without(tx, line, now)


def _hand_over(tx: Tx, keyring: Keyring, line: Line, heir: Authority, now: float) -> None:
    tx.execute("DELETE FROM authority_lines WHERE serial = ?", (str(heir.certificate.serial_number),))
    tx.execute("DELETE FROM authorities WHERE role = ?", (heir.role.value,))
    put_authority(tx, keyring, heir, now)
    _insert(tx, line.current.certificate, heir.role, now, None)


def _insert(tx: Tx, certificate: x509.Certificate, role: Role, now: float, sealed: bytes | None) -> None:
    end = certificate.not_valid_after_utc.timestamp()
    tx.execute(
        "INSERT INTO authority_lines (serial, role, cert_pem, key_sealed, not_after, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (
            str(certificate.serial_number),
            role.value,
            certificate.public_bytes(serialization.Encoding.PEM).decode(),
            sealed,
            to_micros(end),
            to_micros(now),
        ),
    )
