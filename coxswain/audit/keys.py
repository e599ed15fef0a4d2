"""The audit key: signs checkpoints, and nothing else. It is not the CA's, and never in the database.

A file of its own in the state directory, 0600, in the text form of https://c2sp.org/signed-note; its public half lies
beside it for whoever wants to copy it. The name of the key is the name (origin) of the log.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coxswain.audit.note import Signer
from coxswain.errors import NotFound
from coxswain.ids import new_id
from coxswain.statedir import check_private

__all__ = ["ensure_audit_key", "load_audit_key", "new_signer", "public_file", "replace_audit_key"]


def new_signer() -> Signer:
    """A fresh key with a fresh name: the name of a log that nobody has seen yet."""
    return Signer(f"coxswain/{new_id('log').removeprefix('log_')}", Ed25519PrivateKey.generate())


def public_file(path: Path) -> Path:
    """Where the public half of the key in ``path`` is."""
    return path.with_suffix(".pub")


def load_audit_key(path: Path) -> Signer:
    """Reads the key.

    Raises:
        NotFound: there is none.
        LoosePermissions: others can read it.
        InvalidInput: the file holds something else.
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        raise NotFound(f"there is no audit key {path}", remedy="cox serve makes one when it starts.") from None
    check_private(path)
    return Signer.parse(text)


def ensure_audit_key(path: Path) -> tuple[Signer, bool]:
    """The key, made if there is none. Returns it, and whether it was made now."""
    try:
        return load_audit_key(path), False
    except NotFound:
        signer = new_signer()
        replace_audit_key(path, signer)
        return signer, True


def replace_audit_key(path: Path, signer: Signer) -> None:
    """Writes the key, synced, in place of what was there. A crash leaves the old one or the new one."""
    _write(path, signer.secret_text() + "\n")
    _write(public_file(path), f"{signer.verifier}\n")


def _write(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
