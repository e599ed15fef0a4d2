"""Backups that open, because whoever made them had the key, and yet are none: refused, and nothing is changed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coxswain.backup.archive import Writer
from coxswain.backup.envelope import BackupSecret, Damaged, Sealer
from coxswain.backup.restore import Order, restore, verify
from coxswain.errors import InvalidInput, StoreTooNew
from coxswain.messages.audit import Caller
from coxswain.store.migrate import SCHEMA_VERSION

KEY = BackupSecret(bytes(32), is_passphrase=False)
MANIFEST: dict[str, Any] = {
    "format": 1, "id": "bak_aaaaaaaaaaaaaaaa", "created_at": 1.0, "version": "0", "host": "h", "posture": "personal",
    "key_source": "file", "store": "sqlite", "schema": SCHEMA_VERSION, "audit": {"size": 0, "row_hash": ""}, "counts": {},
    "tables": {"users": ["id"]}, "counters": {},
}  # fmt: skip
CONFIG = b"posture: personal\nstate_dir: ./state\n"


def crafted(path: Path, fill: Callable[[Writer], object], **manifest: Any) -> Path:
    out = io.BytesIO()
    sealer = Sealer(out, KEY)
    writer = Writer(sealer, MANIFEST | manifest)
    writer.begin("config/cox.yaml")
    writer.data(CONFIG)
    fill(writer)
    writer.finish()
    sealer.close()
    path.write_bytes(out.getvalue())
    return path


def member(name: str, content: bytes = b"x") -> Callable[[Writer], None]:
    def fill(writer: Writer) -> None:
        writer.begin(name)
        writer.data(content)

    return fill


def page(name: str, offset: int = 0) -> Callable[[Writer], None]:
    def fill(writer: Writer) -> None:
        writer.begin(name)
        writer.page(offset, b"x" * 100)

    return fill


def run(tmp_path: Path, backup: Path) -> None:
    restore(Order(backup, KEY, tmp_path / "new/cox.yaml", Caller("t", "cli"), 2.0, {}))


@pytest.mark.parametrize(
    ("fill", "says"),
    [
        (member("state/../../escaped"), "cannot be the name"),
        (member("state//etc/passwd"), "cannot be the name"),
        (member("state/app.db"), "as a file"),
        (member("state/app.db-wal"), "as a file"),
        (member("state/daemon.pid"), "as a file"),
        (member("elsewhere/x"), "nobody knows"),
        (member("key/other.key"), "nobody knows"),
        (member("database"), "not in pages"),
        (page("state/note"), "pages where a file"),
        (member("table/users"), "another kind"),
        (lambda _writer: None, "holds no database"),
        (page("database"), "not sound"),
    ],
)
def test_what_does_not_belong_there(tmp_path: Path, fill: Callable[[Writer], None], says: str) -> None:
    backup = crafted(tmp_path / "b", fill)
    with pytest.raises(Damaged, match=says):
        run(tmp_path, backup)
    assert sorted(path.name for path in tmp_path.iterdir()) in (["b"], ["b", "new"])
    assert not list(tmp_path.glob("new/*"))


def test_the_same_file_twice(tmp_path: Path) -> None:
    def fill(writer: Writer) -> None:
        member("state/note")(writer)
        member("state/note")(writer)

    with pytest.raises(Damaged, match="twice"):
        run(tmp_path, crafted(tmp_path / "b", fill))
    assert not list(tmp_path.glob("new/*"))


@pytest.mark.parametrize("change", [{"format": 2}, {"schema": SCHEMA_VERSION + 1}])
def test_a_newer_backup_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    backup = crafted(tmp_path / "b", page("database"), **change)
    for act in (lambda: run(tmp_path, backup), lambda: verify(backup, KEY)):
        with pytest.raises(StoreTooNew):
            act()


def test_another_kind_of_store(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="of a postgres store"):
        run(tmp_path, crafted(tmp_path / "b", page("database"), store="postgres"))
    assert not list(tmp_path.glob("new/*"))


def test_a_configuration_inside_that_is_none(tmp_path: Path) -> None:
    out = io.BytesIO()
    sealer = Sealer(out, KEY)
    writer = Writer(sealer, MANIFEST)
    writer.begin("config/cox.yaml")
    writer.data(b"lgo: {level: debug}\n")
    writer.finish()
    sealer.close()
    (tmp_path / "b").write_bytes(out.getvalue())
    with pytest.raises(InvalidInput, match="unknown key"):
        run(tmp_path, tmp_path / "b")
    assert not list(tmp_path.glob("new/*"))
