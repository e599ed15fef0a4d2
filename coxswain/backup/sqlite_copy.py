"""A consistent picture of a SQLite database, page by page, while others write to it.

SQLite's online backup API copies into a database; the one here has a file system of its own, which passes every write on
instead of keeping it. So nothing is written twice, and nothing needs the space for a second copy.

The source is read within one read transaction. In WAL mode that keeps no writer waiting, and the API, which would begin anew
when another process writes, sees one state from beginning to end.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw

from coxswain.errors import StoreUnavailable

__all__ = ["Picture"]

_STEP_PAGES = 256
"""1 MiB at the usual page size; between two steps others may have the processor."""

_BUSY_MS = 10_000


class Picture:
    """One state of the database at ``path``, until ``close``. For one thread. Raises ``StoreUnavailable``."""

    def __init__(self, path: Path) -> None:
        try:
            self._source = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            self._source.set_busy_timeout(_BUSY_MS)
            self._source.execute("PRAGMA query_only = 1")
            self._source.execute("BEGIN")
            self.rows("SELECT count(*) FROM sqlite_schema")  # only the first read takes the picture
        except apsw.Error as error:
            raise StoreUnavailable(f"the database {path} cannot be read: {error}") from None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return list(self._source.execute(sql))

    @property
    def size(self) -> int:
        """Bytes that ``pages`` will give, about."""
        return int(self.rows("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")[0][0])

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Offsets and what belongs there. A later one replaces an earlier one."""
        name = f"coxswain-{secrets.token_hex(8)}"
        vfs = _PassingOn(name)
        try:
            with closing(apsw.Connection("copy", vfs=name, flags=_CREATE)) as target:
                for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -4096"):
                    target.execute(f"PRAGMA {pragma}")
                with target.backup("main", self._source, "main") as copying:
                    while not copying.done:
                        copying.step(_STEP_PAGES)
                        yield from vfs.taken()
                yield from vfs.taken()
            yield from vfs.taken()
        except apsw.Error as error:
            raise StoreUnavailable(f"the database cannot be copied: {error}") from None
        finally:
            vfs.unregister()

    def close(self) -> None:
        """Ends the picture, and moves what was written meanwhile from the write-ahead log into the database: that waited for
        us, and whoever commits next would have to do it otherwise, and be late.
        """
        with suppress(apsw.Error):
            self._source.execute("ROLLBACK")
            self._source.execute("PRAGMA query_only = 0")
            list(self._source.execute("PRAGMA wal_checkpoint(PASSIVE)"))
        self._source.close()


_CREATE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


class _PassingOn(apsw.VFS):
    """A file system of one file that nobody keeps."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "")
        self._file = _File()

    def taken(self) -> Iterator[tuple[int, bytes]]:
        """What was written since the last call."""
        writes, self._file.writes = self._file.writes, []
        yield from writes

    def xOpen(self, _name: Any, _flags: list[int]) -> Any:  # noqa: N802 - apsw's names, here and below
        return self._file

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xAccess(self, _path: str, _flags: int) -> bool:  # noqa: N802
        return False

    def xDelete(self, _path: str, _sync: bool) -> None:  # noqa: N802, FBT001
        return


class _File:
    """Remembers its first page, which SQLite looks at again, and its size."""

    _FIRST = 65_536

    def __init__(self) -> None:
        self.writes: list[tuple[int, bytes]] = []
        self._size = 0
        self._first = bytearray()

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        if offset + amount <= len(self._first):
            return bytes(self._first[offset : offset + amount])
        if offset >= self._size:
            return b"\0" * amount
        raise apsw.IOError(f"a page that was passed on is wanted back ({offset})")

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        content = bytes(data)
        self.writes.append((offset, content))
        self._size = max(self._size, offset + len(content))
        if offset < self._FIRST and offset <= len(self._first):
            self._first[offset : offset + len(content)] = content[: self._FIRST - offset]

    def xFileSize(self) -> int:  # noqa: N802
        return self._size

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._size = size

    def xSync(self, _flags: int) -> None:  # noqa: N802
        return

    def xLock(self, _level: int) -> None:  # noqa: N802
        return

    def xUnlock(self, _level: int) -> None:  # noqa: N802
        return

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, _op: int, _pointer: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return 4096

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xClose(self) -> None:  # noqa: N802
        return
