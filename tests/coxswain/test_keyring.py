"""CA keys at rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from coxswain.clock import ManualClock
from coxswain.errors import KeyUnavailable, LoosePermissions
from coxswain.keyring import KeySource, SealingSecret, load_secret, make_key_file, open_keyring
from coxswain.pki import Role
from coxswain.store import Store
from coxswain.store.pki import ensure_authorities, load_authorities


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    make_key_file(tmp_path / "ca.key")
    return tmp_path / "ca.key"


def secret(key_file: Path) -> SealingSecret:
    return load_secret(KeySource.FILE, key_file=key_file, environ={})


def test_a_key_file_is_private_and_never_overwritten(key_file: Path) -> None:
    assert key_file.stat().st_mode & 0o777 == 0o600
    before = key_file.read_text()
    make_key_file(key_file)
    assert key_file.read_text() == before
    assert len(bytes.fromhex(before)) == 32


def test_authorities_come_back_from_the_store_and_nothing_in_it_is_in_clear(store: Store, key_file: Path) -> None:
    with store.write() as tx:
        keyring = open_keyring(tx, secret(key_file))
    made = ensure_authorities(store, keyring, ManualClock())
    again = ensure_authorities(store, keyring, ManualClock())
    assert {r: a.certificate for r, a in made.items()} == {r: a.certificate for r, a in again.items()}
    assert again[Role.ROOT].key.private_numbers() == made[Role.ROOT].key.private_numbers()
    with store.read() as tx:
        for row in tx.execute("SELECT * FROM authorities"):
            for value in row:
                raw = bytes(value) if isinstance(value, (bytes, memoryview)) else str(value).encode()
                assert b"PRIVATE" not in raw
                for authority in made.values():
                    number = authority.key.private_numbers().private_value.to_bytes(48, "big")
                    assert number not in raw


def test_another_key_is_noticed_at_once(store: Store, key_file: Path, tmp_path: Path) -> None:
    with store.write() as tx:
        open_keyring(tx, secret(key_file))
    make_key_file(tmp_path / "other.key")
    with store.write() as tx, pytest.raises(KeyUnavailable, match="sealed under another key"):
        open_keyring(tx, secret(tmp_path / "other.key"))


def test_sealed_keys_cannot_change_places(store: Store, key_file: Path) -> None:
    with store.write() as tx:
        keyring = open_keyring(tx, secret(key_file))
    ensure_authorities(store, keyring, ManualClock())
    with store.write() as tx:
        sealed = dict(tx.execute("SELECT role, key_sealed FROM authorities"))
        tx.execute("UPDATE authorities SET key_sealed = ? WHERE role = 'control'", (bytes(sealed["device"]),))
    with store.read() as tx, pytest.raises(KeyUnavailable, match="control"):
        load_authorities(tx, keyring)


def test_loose_and_missing_and_foreign_key_files(key_file: Path, tmp_path: Path) -> None:
    key_file.chmod(0o640)
    with pytest.raises(LoosePermissions, match=r"ca\.key") as caught:
        secret(key_file)
    assert caught.value.remedy == f"chmod 600 {key_file}"
    with pytest.raises(KeyUnavailable, match="cannot be read"):
        secret(tmp_path / "nowhere")
    bad = tmp_path / "bad.key"
    bad.write_text("not hex at all")
    bad.chmod(0o600)
    with pytest.raises(KeyUnavailable, match="64 hex digits"):
        secret(bad)


def test_systemd_credential(tmp_path: Path) -> None:
    (tmp_path / "coxswain-ca-key").write_text("ab" * 32)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    loaded = load_secret(KeySource.CREDENTIAL, key_file=Path("unused"), environ=environ)
    assert loaded.raw == bytes.fromhex("ab" * 32)
    with pytest.raises(KeyUnavailable, match="CREDENTIALS_DIRECTORY"):
        load_secret(KeySource.CREDENTIAL, key_file=Path("unused"), environ={})


def test_passphrase(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "phrase"
    file.write_text("correct horse\n")
    file.chmod(0o600)
    from_file = load_secret(KeySource.PASSPHRASE, key_file=Path("unused"), environ={"COX_CA_PASSPHRASE_FILE": str(file)})
    from_env = load_secret(KeySource.PASSPHRASE, key_file=Path("unused"), environ={"COX_CA_PASSPHRASE": "correct horse"})
    assert from_file.raw == from_env.raw
    with store.write() as tx:
        sealed = open_keyring(tx, from_env).seal(b"x", "label")
    with store.write() as tx:
        assert open_keyring(tx, from_file).open(sealed, "label") == b"x"
    wrong = load_secret(KeySource.PASSPHRASE, key_file=Path("unused"), environ={"COX_CA_PASSPHRASE": "battery"})
    with store.write() as tx, pytest.raises(KeyUnavailable):
        open_keyring(tx, wrong)
    with pytest.raises(KeyUnavailable, match="none was given"):
        load_secret(KeySource.PASSPHRASE, key_file=Path("unused"), environ={})


def test_nothing_shows_the_secret(store: Store, key_file: Path) -> None:
    held = secret(key_file)
    with store.write() as tx:
        keyring = open_keyring(tx, held)
    for text in (repr(held), str(held), repr(keyring)):
        assert key_file.read_text().strip()[:8] not in text
        assert repr(held.raw)[2:8] not in text
