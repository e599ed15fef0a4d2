"""Making a backup, of a daemon that runs or one that does not: the files are read, nobody is asked for anything.

Order matters: first the files of the state directory are opened, then the picture of the database is taken. So a checkpoint
of the audit log that is in the backup is never newer than the log in it.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from coxswain import __version__
from coxswain.backup.archive import Writer, safe_name
from coxswain.backup.envelope import BackupSecret, Sealer
from coxswain.config import Config
from coxswain.errors import InvalidInput, NotFound, Refused
from coxswain.ids import new_id
from coxswain.store.migrate import SCHEMA_VERSION

__all__ = ["CONFIG_FILE", "FORMAT", "Made", "Pace", "Progress", "create", "movable"]

FORMAT = 1
CONFIG_FILE = "config/cox.yaml"
"""The name of the configuration; what is in the state directory is ``state/...``, what may lie elsewhere ``key/...``."""

_BLOCK = 256 * 1024
_LARGEST_FILE = 256 * 1024 * 1024
"""Of the files beside the database: keys, checkpoints, agents to upload."""

_DATABASE = ("app.db", "app.db-wal", "app.db-shm", "app.db-journal")
_OF_A_RUN = ("app.db.lock", "daemon.pid")
_SYNC_EVERY = 1024 * 1024
"""Bytes between two syncs of the file, so that the daemon's own small ones never wait behind a gigabyte."""

_TURN_S = 0.02
_LONGEST_PAUSE_S = 0.2

Progress = Callable[[int, int], object]
"""Called with bytes done and bytes in all, about."""


@dataclass(frozen=True, slots=True)
class Made:
    """A finished backup. ``size``: bytes of the file; ``plain_bytes``: of what is in it."""

    id: str
    path: Path
    size: int
    plain_bytes: int
    manifest: dict[str, Any]


class Pace:
    """Half of the time is left to others: after each turn of work, a pause as long as it was.

    Priorities alone do not do that: they say nothing about caches, memory and the disk.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()

    def breathe(self) -> None:
        """Called between pieces of work."""
        worked = time.monotonic() - self._began
        if worked >= _TURN_S:
            time.sleep(min(worked, _LONGEST_PAUSE_S))
            self._began = time.monotonic()


def create(
    config: Config,
    out: Path,
    secret: BackupSecret,
    *,
    now: float,
    progress: Progress = lambda _done, _all: None,
    pace: Pace | None = None,
) -> Made:
    """Writes a backup of this configuration's state to ``out``, which appears only when it is whole and on disk.

    ``pace`` None: as fast as it goes.

    Raises:
        NotFound: there is no state.
        InvalidInput: ``out`` is there already, or cannot be written.
        Refused: the schema is not this release's: start the daemon once, or use the release that fits.
        StoreUnavailable: the database cannot be read.
    """
    if not config.state_dir.is_dir():
        raise NotFound(f"there is no state directory {config.state_dir}", remedy="Make one with: cox init")
    if os.path.lexists(out):
        raise InvalidInput(f"out: {out} is there already; it takes the name of a new file")
    partial = out.with_name(out.name + ".partial")
    try:
        descriptor = os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise InvalidInput(f"out: {partial} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            os.fchmod(file.fileno(), 0o600)
            paced = _Paced(file)
            sealer = Sealer(paced, secret)

            def tick(done: int, total: int) -> None:
                progress(done, total)
                if pace is not None:
                    pace.breathe()

            made_id, manifest, plain = _write(config, sealer, now, tick)
            sealer.close()
            os.fsync(file.fileno())
        os.replace(partial, out)  # noqa: PTH105
        _sync_directory(out.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return Made(made_id, out, out.stat().st_size, plain, manifest)


def _write(config: Config, sink: Sealer, now: float, progress: Progress) -> tuple[str, dict[str, Any], int]:
    backup_id = new_id("bak")
    with ExitStack() as opened:
        files = [(name, opened.enter_context(path.open("rb"))) for name, path in _files(config)]
        sizes = [os.fstat(file.fileno()).st_size for _, file in files]
        source: _Source = _Postgres(config.database) if isinstance(config.database, str) else _Sqlite(config.database)
        opened.enter_context(closing(source))
        manifest = {
            "format": FORMAT,
            "id": backup_id,
            "created_at": now,
            "version": __version__,
            "host": socket.gethostname(),
            "posture": config["posture"],
            "key_source": config["ca.key_source"],
            "files": [name for name, _ in files],
            **source.describe(),
        }
        archive = Writer(sink, manifest)
        total = source.size
        for (name, file), left in zip(files, sizes, strict=True):
            archive.begin(name)
            while left > 0 and (block := file.read(min(left, _BLOCK))):  # what is appended from now on is not ours
                archive.data(block)
                left -= len(block)  # noqa: PLW2901
        source.write(archive, lambda: progress(archive.plain_bytes, total))
        archive.finish()
        progress(archive.plain_bytes, archive.plain_bytes)
        return backup_id, manifest, archive.plain_bytes


def movable(config: Config) -> dict[str, Path]:
    """What the configuration may put outside the state directory, by its name in a backup."""
    audit = config.audit_paths
    key = {"ca.key": config.key_file} if config["ca.key_source"] == "file" else {}
    return key | {"audit.key": audit.key, "audit-checkpoints": audit.checkpoints}


def _files(config: Config) -> Iterator[tuple[str, Path]]:
    """Names in the backup, and where they are. Everything in the state directory but what belongs to a run."""
    if config.path.is_file():
        yield CONFIG_FILE, config.path
    for name, path in movable(config).items():
        if path.is_file() and not path.is_relative_to(config.state_dir):
            yield f"key/{name}", path
    database = config.database if isinstance(config.database, Path) else None
    for path in sorted(config.state_dir.rglob("*")):
        where = path.relative_to(config.state_dir)
        if where.as_posix() in (*_DATABASE, *_OF_A_RUN) or path == database:
            continue
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode):
            continue  # the control socket; links would lead out
        safe_name(f"state/{where.as_posix()}")
        if info.st_size > _LARGEST_FILE:
            raise Refused(
                f"{path} is larger than {_LARGEST_FILE} bytes; that is no file of the state", remedy="Move it elsewhere."
            )
        yield f"state/{where.as_posix()}", path


class _Source(ABC):
    """One state of the database. ``size``: bytes of it, about."""

    size: int

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the manifest says about it."""

    @abstractmethod
    def write(self, archive: Writer, tick: Callable[[], object]) -> None:
        """All of it, as members of the archive. ``tick`` is called between pieces."""

    @abstractmethod
    def close(self) -> None:
        """Lets the database go."""


class _Sqlite(_Source):
    def __init__(self, path: Path) -> None:
        from coxswain.backup.sqlite_copy import Picture  # noqa: PLC0415 - one of the two drivers is enough

        if not path.is_file():
            raise NotFound(f"there is no database {path}", remedy="Make one with: cox init")
        self._picture = Picture(path)
        self.size = self._picture.size

    def describe(self) -> dict[str, Any]:
        return {"store": "sqlite", **_facts(self._picture.rows)}

    def write(self, archive: Writer, tick: Callable[[], object]) -> None:
        archive.begin("database")
        for offset, content in self._picture.pages():
            archive.page(offset, content)
            tick()

    def close(self) -> None:
        self._picture.close()


class _Postgres(_Source):
    def __init__(self, dsn: str) -> None:
        from coxswain.backup.postgres_copy import PostgresPicture  # noqa: PLC0415

        self._picture = PostgresPicture(dsn)
        self.size = self._picture.size

    def describe(self) -> dict[str, Any]:
        return {
            "store": "postgres",
            "tables": self._picture.tables,
            "counters": self._picture.counters(),
            **_facts(self._picture.rows),
        }

    def write(self, archive: Writer, tick: Callable[[], object]) -> None:
        for name in self._picture.tables:
            archive.begin(f"table/{name}")
            for block in self._picture.table(name):
                archive.data(block)
                tick()

    def close(self) -> None:
        self._picture.close()


def _facts(rows: Callable[[str], list[tuple[Any, ...]]]) -> dict[str, Any]:
    """What the manifest says about the database. Both databases understand these questions."""
    schema = int(rows("SELECT value FROM meta WHERE key = 'schema_version'")[0][0])
    if schema != SCHEMA_VERSION:
        raise Refused(
            f"the database has schema {schema}, this release has {SCHEMA_VERSION}",
            remedy="Use the release that the daemon is of, or start this one's daemon once, which brings it up to date.",
        )
    head = rows("SELECT seq, row_hash FROM audit_log ORDER BY seq DESC LIMIT 1")
    counts = rows(
        "SELECT (SELECT count(*) FROM nodes), (SELECT count(*) FROM users WHERE role = 'user'), "
        "(SELECT count(*) FROM devices)"
    )[0]
    return {
        "schema": schema,
        "audit": {"size": head[0][0] if head else 0, "row_hash": head[0][1] if head else ""},
        "counts": {"nodes": counts[0], "users": counts[1], "devices": counts[2]},
    }


class _Paced:
    """A file that goes to disk in small steps, and does not push the daemon's pages out of memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._written = 0
        self._synced = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._written += len(data)
        if self._written - self._synced >= _SYNC_EVERY:
            os.fdatasync(self._file.fileno())
            os.posix_fadvise(self._file.fileno(), self._synced, self._written - self._synced, os.POSIX_FADV_DONTNEED)
            self._synced = self._written
        return len(data)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
