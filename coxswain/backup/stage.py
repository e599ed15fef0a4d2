"""Where a backup is put together before it is moved in: files, pages of SQLite, rows of Postgres."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from coxswain.backup.archive import Data, Page
from coxswain.backup.envelope import Damaged
from coxswain.store import Store

__all__ = ["DatabaseStage", "copy_private", "counted", "look_into", "sync", "write_file", "write_pages"]


class DatabaseStage:
    """Takes the database in, whichever it is."""

    def __init__(self, database: str | Path, manifest: dict[str, Any], stage: Path, *, force: bool) -> None:
        self._manifest = manifest
        self._path = stage / "app.db"
        self._store: Store | None = None
        self._target: Any = None
        self._has_come = False
        if isinstance(database, str):
            self._open_postgres(database, force=force)

    def _open_postgres(self, dsn: str, *, force: bool) -> None:
        from coxswain.backup.postgres_copy import PostgresTarget  # noqa: PLC0415 - one of the two drivers is enough
        from coxswain.store.migrate import migrate  # noqa: PLC0415
        from coxswain.store.postgres import PostgresStore  # noqa: PLC0415

        self._store = PostgresStore(dsn.strip())
        self._store.hold_exclusively()
        PostgresTarget.require_empty(dsn, force=force)
        migrate(self._store, upto=int(self._manifest["schema"]))
        self._target = PostgresTarget(dsn)

    def take(self, kind: str, table: str, frames: Iterator[Data | Page]) -> None:
        self._has_come = True
        if kind == "database" and self._target is None:
            write_pages(self._path, frames)
        elif kind == "table" and self._target is not None:
            columns = self._manifest["tables"].get(table)
            if columns is None:
                raise Damaged(f"the backup holds a table {table[:60]!r} that its manifest does not name")
            self._target.take(table, columns, (frame.content for frame in frames))
        else:
            raise Damaged("the backup holds a database of another kind than its manifest says")

    def finish(self) -> None:
        """Called when the whole backup was read, and so is known to be whole."""
        if not self._has_come:
            raise Damaged("the backup holds no database")
        if self._target is not None:
            self._target.commit(self._manifest["id"], self._manifest["counters"])

    def close(self) -> None:
        for what in (self._target, self._store):
            if what is not None:
                what.close()


def counted(frames: Iterator[Data | Page], tell: Callable[[int], object]) -> Iterator[Data | Page]:
    for frame in frames:
        tell(len(frame.content))
        yield frame


def write_file(path: Path, frames: Iterable[Data | Page]) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for frame in frames:
            if isinstance(frame, Page):
                raise Damaged("the backup holds pages where a file should be")
            file.write(frame.content)
        file.flush()
        os.fsync(file.fileno())


def write_pages(path: Path, frames: Iterable[Data | Page]) -> int:
    size = 0
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for frame in frames:
            if not isinstance(frame, Page):
                raise Damaged("the backup holds a database that is not in pages")
            size += os.pwrite(file.fileno(), frame.content, frame.offset)
        os.fsync(file.fileno())
    return size


def look_into(path: Path, *, quick: bool = False) -> list[str]:
    """What SQLite says about a database."""
    import apsw  # noqa: PLC0415

    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        with suppress(apsw.Error):
            connection.set_busy_timeout(1_000)
        rows = list(connection.execute(f"PRAGMA {'quick_check' if quick else 'integrity_check'}(10)"))
        broken = [] if quick else list(connection.execute("PRAGMA foreign_key_check"))
        connection.close()
    except apsw.Error as error:
        return [str(error)]
    found = [str(row[0]) for row in rows if row[0] != "ok"]
    return found + [f"a row of {row[0]} refers to one of {row[2]} that is not there" for row in broken[:10]]


def copy_private(source: Path, target: Path) -> None:
    draft = target.with_name(target.name + ".copy")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as out, source.open("rb") as file:
        shutil.copyfileobj(file, out)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(target)


def sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
