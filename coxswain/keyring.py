"""Keys at rest: private keys in the store are sealed under one key that is not in the store.

The sealing key comes from a file (the default, made by ``cox init``), a systemd credential, or a passphrase. It protects
copies of the database (backups, a dumped Postgres); whoever can read the key file as well, holds everything.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from coxswain.errors import KeyUnavailable, LoosePermissions
from coxswain.store.api import Tx

__all__ = ["KeySource", "Keyring", "SealingSecret", "load_secret", "make_key_file", "open_keyring"]

_KEY_BYTES = 32
_NONCE_BYTES = 12
_PROOF = b"coxswain keyring"
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**15, 8, 1
"""OWASP's recommendation for interactive use; a passphrase is asked for once per start."""

_CREDENTIAL = "coxswain-ca-key"


class KeySource(StrEnum):
    """Where the sealing key comes from (configuration: ``ca.key_source``)."""

    FILE = "file"
    CREDENTIAL = "credential"
    PASSPHRASE = "passphrase"  # noqa: S105 - the name of a source


@dataclass(frozen=True)
class SealingSecret:
    """What the sealing key is made from. Never printed."""

    source: KeySource
    raw: bytes

    def __repr__(self) -> str:
        return f"SealingSecret({self.source.value})"


class Keyring:
    """Seals and opens private keys. Thread-safe: it never changes."""

    def __init__(self, source: KeySource, key: bytes) -> None:
        self.source = source
        self._aead = AESGCM(key)

    def __repr__(self) -> str:
        return f"Keyring({self.source.value})"

    def seal(self, plain: bytes, label: str) -> bytes:
        """Encrypts ``plain``; only ``open`` with the same label gives it back, so that rows cannot be swapped."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, label.encode())

    def open(self, sealed: bytes, label: str) -> bytes:
        """Raises ``KeyUnavailable`` if it was sealed under another key or label, or was changed."""
        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], label.encode())
        except (InvalidTag, ValueError):
            raise KeyUnavailable(
                f"the sealed key of {label} cannot be opened: it was sealed under another key, or was changed",
                remedy="Give the daemon the key file, credential or passphrase that this state was made with.",
            ) from None


def make_key_file(path: Path) -> None:
    """Writes a fresh key, 0600. An existing file is left alone."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(_KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())


def load_secret(source: KeySource, *, key_file: Path, environ: dict[str, str]) -> SealingSecret:
    """Fetches the secret from where the configuration says.

    Args:
        source: where.
        key_file: for ``file``; for ``passphrase``, unused.
        environ: the process's environment: ``CREDENTIALS_DIRECTORY`` (systemd), ``COX_CA_PASSPHRASE`` or
            ``COX_CA_PASSPHRASE_FILE``.

    Raises:
        KeyUnavailable: it is not there, or is no key.
        LoosePermissions: others can read the key file.
    """
    match source:
        case KeySource.FILE:
            return SealingSecret(source, _hex_key(_read_private(key_file), key_file))
        case KeySource.CREDENTIAL:
            directory = environ.get("CREDENTIALS_DIRECTORY")
            if not directory:
                raise KeyUnavailable(
                    "ca.key_source is credential, but CREDENTIALS_DIRECTORY is not set",
                    remedy=f"Start the daemon from a systemd unit with LoadCredential={_CREDENTIAL}:PATH",
                )
            path = Path(directory) / _CREDENTIAL
            return SealingSecret(source, _hex_key(_read(path), path))
        case KeySource.PASSPHRASE:
            phrase = environ.get("COX_CA_PASSPHRASE", "").encode()
            if not phrase and "COX_CA_PASSPHRASE_FILE" in environ:
                phrase = _read_private(Path(environ["COX_CA_PASSPHRASE_FILE"])).rstrip(b"\r\n")
            if not phrase:
                raise KeyUnavailable(
                    "ca.key_source is passphrase, but none was given",
                    remedy="Set COX_CA_PASSPHRASE_FILE to a file that only this user can read.",
                )
            return SealingSecret(source, phrase)


def open_keyring(tx: Tx, secret: SealingSecret) -> Keyring:
    """Ties a store to its sealing key the first time, and checks it every time after.

    Raises:
        KeyUnavailable: this store was sealed under another key.
    """
    rows = tx.execute("SELECT salt, proof FROM keyring WHERE id = 1")
    if not rows:
        salt = secrets.token_bytes(16)
        keyring = Keyring(secret.source, _derive(secret, salt))
        proof = keyring.seal(_PROOF, "keyring")
        tx.execute("INSERT INTO keyring (id, source, salt, proof) VALUES (1, ?, ?, ?)", (secret.source.value, salt, proof))
        return keyring
    salt, proof = bytes(rows[0][0]), bytes(rows[0][1])
    keyring = Keyring(secret.source, _derive(secret, salt))
    try:
        keyring.open(proof, "keyring")
    except KeyUnavailable:
        raise KeyUnavailable(
            f"the CA of this state was sealed under another key than the one from the {secret.source.value}",
            remedy="Give the daemon the key file, credential or passphrase that this state was made with.",
        ) from None
    return keyring


def _derive(secret: SealingSecret, salt: bytes) -> bytes:
    if secret.source is KeySource.PASSPHRASE:
        return Scrypt(salt=salt, length=_KEY_BYTES, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P).derive(secret.raw)
    return hashlib.blake2b(secret.raw, key=salt, digest_size=_KEY_BYTES).digest()


def _hex_key(text: bytes, path: Path) -> bytes:
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except (ValueError, UnicodeDecodeError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise KeyUnavailable(f"{path} holds no key: {_KEY_BYTES * 2} hex digits are needed")
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise KeyUnavailable(
            f"the key {path} cannot be read: {error.strerror}",
            remedy="Put it back from where you keep it; without it the CA's keys stay sealed.",
        ) from None


def _read_private(path: Path) -> bytes:
    content = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise LoosePermissions(f"{path} can be read by others (mode {mode:04o})", remedy=f"chmod 600 {path}")
    return content
