"""Putting a backup back: on a new machine, or in place of a state that is no good.

Everything is prepared beside the place where it will be, checked there, and moved in at the end. What was revoked after the
backup was made is revoked again, as far as an append-only file tells (``coxswain.backup.revocations``), and an audit record
says what was restored from what. Nodes may be ahead of the revision in the backup: their links adopt that and go on from
there.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coxswain.audit.checkpoint_file import CheckpointFile
from coxswain.audit.keys import load_audit_key
from coxswain.audit.restart import restart_restored
from coxswain.audit.settings import AuditPaths
from coxswain.audit.verify import verify as verify_log
from coxswain.backup.archive import Data, Page, safe_name
from coxswain.backup.create import CONFIG_FILE, movable
from coxswain.backup.envelope import BackupSecret, Damaged
from coxswain.backup.put_back import doubt_what_was_acknowledged, forget_what_was_under_way
from coxswain.backup.replay import Replayed, replay
from coxswain.backup.revocations import FILE, Entry, RevocationLog, read_file
from coxswain.backup.stage import DatabaseStage, copy_private, counted, look_into, sync, write_file, write_pages
from coxswain.backup.unpack import Member, unpack
from coxswain.config import Config, check
from coxswain.errors import AlreadyExists, InvalidInput, KeyUnavailable
from coxswain.keyring import KeySource, load_secret, open_keyring
from coxswain.messages.audit import Caller
from coxswain.statedir import StateDirectory, open_state_directory
from coxswain.store import Durability, Store, open_store
from coxswain.store.access import BUILT_IN

__all__ = ["Order", "Restored", "Verified", "restore", "verify"]

_NEVER_FILES = frozenset({"app.db", "app.db-wal", "app.db-shm", "app.db.lock", "daemon.pid", "control.sock"})
_OUTSIDE = ".outside"
"""In the stage: what the configuration wants outside of the state directory."""

_MOST_NAMED = 100
"""Things that were revoked again, in the audit record; all of them are in the file."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done. ``replaced``: where the state that was there before lies now. ``notes``: what to know and do."""

    manifest: dict[str, Any]
    config: Config
    revoked: Replayed
    seq: int
    replaced: Path | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """A backup that is whole. ``problems``: of what is in it (only after a full look)."""

    manifest: dict[str, Any]
    members: int
    plain_bytes: int
    problems: tuple[str, ...]


def verify(path: Path, secret: BackupSecret, *, scratch: Path | None = None) -> Verified:
    """Reads a backup to its end; nothing of it is kept.

    Args:
        path: the file.
        secret: what opens it.
        scratch: an empty directory with room for the state: the database is put there, and looked at as well.

    Raises:
        Damaged, KeyUnavailable, InvalidInput, StoreTooNew: see ``unpack``.
    """
    found = unpack(path, secret)
    members = size = 0
    problems: list[str] = []
    for member in found.members:
        members += 1
        if scratch is not None and member.name == "database":
            size += write_pages(scratch / "app.db", member.frames)
            problems = look_into(scratch / "app.db")
        elif scratch is not None and member.name in _OF_THE_LOG:
            write_file(scratch / member.name.rpartition("/")[2], member.frames)
        else:
            size += sum(len(frame.content) for frame in member.frames)
    if scratch is not None and (scratch / "app.db").exists() and not problems:
        problems = _look_into_log(scratch)
    return Verified(found.manifest, members, size, tuple(problems))


_OF_THE_LOG = frozenset(f"{kind}/{name}" for kind in ("state", "key") for name in ("audit.key", "audit-checkpoints"))


def _look_into_log(scratch: Path) -> list[str]:
    """Every record of the audit log, and the checkpoint that came with it."""
    paths = AuditPaths.in_state(scratch)
    newest = CheckpointFile(paths.checkpoints).newest()
    store = open_store(scratch / "app.db")
    try:
        with store.read() as tx:
            report = verify_log(tx, load_audit_key(paths.key).verifier, [newest] if newest else [])
    finally:
        store.close()
    broken = [] if report.broken is None else [f"audit log: record {report.broken.seq}: {report.broken.why}"]
    return broken + [f"audit log: {finding.why}" for finding in report.findings]


@dataclass(frozen=True)
class Order:
    """What is to be put back where.

    Attributes:
        backup: the file.
        secret: what opens it.
        config_path: the configuration to restore for; where there is none, that of the backup is put there.
        caller: who does it, for the audit log.
        now: epoch seconds.
        environ: the environment that the daemon will have.
        beside: directories that may hold newer append-only files than the backup: what was revoked, what was signed.
        force: replaces a state that is there; it is moved aside (a Postgres database is overwritten).
        progress: told the number of bytes whenever some were taken in.
    """

    backup: Path
    secret: BackupSecret
    config_path: Path
    caller: Caller
    now: float
    environ: dict[str, str]
    beside: tuple[Path, ...] = ()
    force: bool = False
    progress: Callable[[int], object] = lambda _count: None


def restore(order: Order) -> Restored:
    """Puts a backup back. The daemon must not run.

    Raises:
        AlreadyExists, Conflict: there is a state, without ``force``.
        StateDirectoryHeld: a daemon runs on it.
        Damaged, KeyUnavailable, StoreTooNew, InvalidInput: see ``unpack``. Nothing has changed.
        Refused: a file beside tells of revocations, and was changed.
    """
    found = unpack(order.backup, order.secret)
    with ExitStack() as undo:
        first = next(found.members, None)
        config, written = _configuration(first, order)
        if written:
            undo.callback(order.config_path.unlink, missing_ok=True)
        rest = found.members if first is None or first.name == CONFIG_FILE else _with(first, found.members)
        is_postgres = isinstance(config.database, str)
        if is_postgres != (found.manifest["store"] == "postgres"):
            raise InvalidInput(
                f"the backup is of a {found.manifest['store']} store, the configuration {order.config_path} says "
                f"{'postgres' if is_postgres else 'sqlite'}",
                remedy="Restore it into the same kind of store: set or leave out database.dsn.",
            )
        held = _hold_old(config.state_dir, force=order.force)
        if held is not None:
            undo.callback(held.close)
        work = _Work(order, config, found.manifest)
        shutil.rmtree(work.stage, ignore_errors=True)
        work.stage.mkdir(mode=0o700, parents=True)
        undo.callback(shutil.rmtree, work.stage, ignore_errors=True)
        work.take(rest)
        entries = work.newest_files([*order.beside, *([config.state_dir] if held is not None else [])])
        replayed, seq = work.finish(entries)
        work.notes += replayed.strangers
        has_password = config["admin.password"] or config["admin.password_hash"]
        if has_password and any(e.action == "admin.password" and e.target_id == BUILT_IN for e in replayed.entries):
            work.notes.append(
                "the built-in admin's password was changed after the backup was made, and the configuration may hold the "
                "old one; look at admin.password_hash before the start"
            )
        replaced = work.move_in(has_old=held is not None)
        owner = config.state_dir.parent.stat().st_uid
        if owner != os.geteuid():
            work.notes.append(
                f"{config.state_dir} belongs to user {os.geteuid()} now, and what is above it to {owner}; if that is the "
                f"daemon's user, give it the state: chown -R {owner} {config.state_dir} {config.path}"
            )
        undo.pop_all()
        if held is not None:
            held.close()
        return Restored(found.manifest, config, replayed, seq, replaced, tuple(work.notes))


def _with(first: Member, rest: Iterator[Member]) -> Iterator[Member]:
    yield first
    yield from rest


def _configuration(first: Member | None, order: Order) -> tuple[Config, bool]:
    """The configuration in force, and whether it was written now. That of the backup is its first member."""
    path, environ = order.config_path, order.environ
    raw = b""
    if first is not None and first.name == CONFIG_FILE:
        raw = b"".join(frame.content for frame in first.frames)
    if path.exists():
        return check(path.read_bytes(), path, environ), False
    if not raw:
        raise InvalidInput(f"config: there is no {path}, and the backup holds none", remedy="Make one with: cox init")
    config = check(raw, path, environ)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    return config, True


def _hold_old(target: Path, *, force: bool) -> StateDirectory | None:
    """Claims the state that is there, so that no daemon works on it; None: there is none."""
    if not os.path.lexists(target):
        return None
    if not any(target.iterdir()):
        target.rmdir()
        return None
    if not force:
        raise AlreadyExists(
            f"there is a state in {target} already",
            remedy="Restore elsewhere, or replace it with --force; it is kept aside.",
        )
    return open_state_directory(target)


class _Work:
    """One restore, from the first member to the move."""

    def __init__(self, order: Order, config: Config, manifest: dict[str, Any]) -> None:
        self._order = order
        self._config = config
        self._manifest = manifest
        self.notes: list[str] = []
        target = config.state_dir
        self.stage = target.with_name(f"{target.name}.restore-{manifest['id'][-8:]}")
        self._outside = self.stage / _OUTSIDE
        self._places = {name: self._place(name, path) for name, path in movable(config).items()}
        """Where in the stage things lie that may be outside of the state directory in the end."""

    def _place(self, name: str, path: Path) -> Path:
        state_dir = self._config.state_dir
        return self.stage / path.relative_to(state_dir) if path.is_relative_to(state_dir) else self._outside / name

    def take(self, members: Iterable[Member]) -> None:
        """Puts the members in their places. When it returns, the backup was read to its end, and is whole."""
        with closing(DatabaseStage(self._config.database, self._manifest, self.stage, force=self._order.force)) as database:
            for member in members:
                frames = counted(member.frames, self._order.progress)
                kind, _, rest = member.name.partition("/")
                if kind == "key" and rest in self._places:
                    self._write(self._places[rest], frames)
                elif kind == "state" and rest:
                    if rest in _NEVER_FILES:
                        raise Damaged(f"the backup holds {rest} as a file")
                    self._write(self._places.get(rest, self.stage / safe_name(rest)), frames)
                elif member.name == "database" or kind == "table":
                    database.take(kind, rest, frames)
                elif member.name != CONFIG_FILE:
                    raise Damaged(f"the backup holds a member {member.name[:60]!r} that nobody knows")
            database.finish()

    def _write(self, path: Path, frames: Iterator[Data | Page]) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(path, frames)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise Damaged(f"the backup holds {path.relative_to(self.stage)} twice, or as a file and a directory") from None

    def newest_files(self, beside: list[Path]) -> list[Entry]:
        """Puts the newest append-only files into the stage. Returns what was revoked, by all of them."""
        mine = self.stage / FILE
        others = [path for directory in beside if (path := directory / FILE).is_file()]
        entries: dict[str, Entry] = {}
        newest, longest = mine, -1
        for path in [mine, *others] if mine.exists() else others:
            its = read_file(path)
            for entry in its:
                entries.setdefault(entry.id, entry)
            if len(its) > longest:
                newest, longest = path, len(its)
        if newest != mine:
            copy_private(newest, mine)
        if not others:
            self.notes.append(
                f"no {FILE} beside the backup was given: what was revoked after {_day(self._manifest['created_at'])} is not "
                "known. If the old one is anywhere, restore again with --beside DIR; otherwise revoke again by hand"
            )
        for directory in beside:
            signed, own = directory / "audit-checkpoints", self._places["audit-checkpoints"]
            if signed.is_file() and (not own.exists() or signed.stat().st_size > own.stat().st_size):
                copy_private(signed, own)
        return list(entries.values())

    def finish(self, entries: list[Entry]) -> tuple[Replayed, int]:
        """Brings the database up to this release, revokes again, and leaves the record. Returns its number in the log."""
        where: str | Path = self._config.database
        if isinstance(where, Path):
            where = self.stage / "app.db"
            problems = look_into(where, quick=True)
            if problems:
                raise Damaged(f"the database in the backup is not sound: {problems[0]}")
        paths = AuditPaths(self._places["audit.key"], self._places["audit-checkpoints"], self.stage / FILE)
        if not paths.key.exists():
            raise Damaged("the backup holds no audit key")
        store = open_store(where, exclusive=isinstance(where, str))
        try:
            self._try_key(store)
            with store.write(Durability.ACKNOWLEDGED) as tx:
                replayed = replay(tx, entries, self._order.now)
                forget_what_was_under_way(tx)
                doubt_what_was_acknowledged(tx)
            seq = restart_restored(store, paths, self._order.caller, self._detail(replayed), now=self._order.now)
            with store.write(Durability.ACKNOWLEDGED) as tx:
                tx.execute("DELETE FROM meta WHERE key = 'restoring'")
        finally:
            store.close()
        RevocationLog(self.stage / FILE).mark_restored(seq, self._manifest["id"], self._order.now)
        return replayed, seq

    def _detail(self, replayed: Replayed) -> dict[str, Any]:
        return {
            "backup": self._manifest["id"],
            "created_at": int(self._manifest["created_at"]),
            "made_by": self._manifest["version"],
            "on": self._manifest["host"],
            "audit_size": self._manifest["audit"]["size"],
            "revoked_again": list(replayed.effects)[:_MOST_NAMED],
            "revocations": len(replayed.entries),
        }

    def _try_key(self, store: Store) -> None:
        """Does the key of the CA fit? Better known now than at the start. Raises ``KeyUnavailable`` if not."""
        staged = self._places.get("ca.key", self._config.key_file)
        key_file = staged if staged.exists() else self._config.key_file
        try:
            source = KeySource(self._config["ca.key_source"])
            secret = load_secret(source, key_file=key_file, environ=self._order.environ)
        except KeyUnavailable as error:
            self.notes.append(f"the CA's keys cannot be opened yet: {error}")
            return
        with store.write(Durability.ACKNOWLEDGED) as tx:
            open_keyring(tx, secret)

    def move_in(self, *, has_old: bool) -> Path | None:
        """The stage becomes the state. Returns where the old one lies now."""
        target, aside = self._config.state_dir, f".replaced-{int(self._order.now)}"
        for name, path in movable(self._config).items():
            staged = self._outside / name
            if not staged.exists():
                continue
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists() and path.read_bytes() != staged.read_bytes():
                path.rename(path.with_name(path.name + aside))
            copy_private(staged, path)
        shutil.rmtree(self._outside, ignore_errors=True)
        replaced = None
        if has_old:
            replaced = target.with_name(target.name + aside)
            target.rename(replaced)
        self.stage.rename(target)
        sync(target.parent)
        return replaced


def _day(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
