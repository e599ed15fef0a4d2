"""Files that commands write. Those that hold secrets: 0600, and never in place of one that is there."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from coxswain.errors import CoxswainError, InvalidInput, Refused, Unavailable
from coxswain.replacing import made_like

__all__ = ["check_free", "explained", "file_stem", "give_up_output", "write_private", "written"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_PLACE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.EEXIST)


def file_stem(user: str) -> str:
    """What a user (an id or e-mail address) is called in the name of a file."""
    return re.sub(r"[^A-Za-z0-9@._-]+", "-", user).strip(".-") or "user"


def write_private(path: Path, content: str | bytes) -> None:
    """A new file that nobody else can read; one that is there is left alone. Raises ``InvalidInput``."""
    raw = content.encode() if isinstance(content, str) else content
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise _present(path) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)


def check_free(path: Path) -> None:
    """That ``write_private`` can write there: before something is made that is told only once. Raises ``InvalidInput``."""
    if path.exists() or path.is_symlink():
        raise _present(path)
    _check_parent(path)


def _check_parent(path: Path) -> None:
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)):
        raise InvalidInput(f"out: {path.parent} is no directory in which files can be made")


def _present(path: Path) -> InvalidInput:
    return InvalidInput(f"out: {path} is there already; remove it, or choose another name with --out")


@contextmanager
def written(out: str | None) -> Iterator[IO[str]]:
    """A file that is there when it is complete, and not otherwise; None: the standard output.

    A device or a pipe is written to, and stays what it is; so does a link. Raises ``InvalidInput`` before anything is made.
    """
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # for programs: nothing is escaped, as what people read may be
            sys.stdout.reconfigure(encoding="utf-8", errors="strict")
        yield sys.stdout
        return
    path = Path(out)
    if not out or path.is_dir():
        raise InvalidInput(f"out: {out!r} is a directory; give the name of a file in it" if out else "out: no name is given")
    try:
        if path.exists() and not path.is_file():
            with path.open("w", encoding="utf-8") as file:
                yield file
        else:
            path = path.resolve()
            _check_parent(path)
            yield from _in_place(path)
    except OSError as error:
        if error.filename is None:  # what fails in the middle does not say where
            error.filename = str(path)
        raise


def _in_place(path: Path) -> Iterator[IO[str]]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("x", encoding="utf-8") as file:
            if path.exists():
                made_like(path, draft)
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def give_up_output() -> None:
    """What could not be written is not tried again when the interpreter ends, which would say so in its own words."""
    if sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def explained(error: OSError) -> CoxswainError:
    """What the system said no to, with the way out."""
    where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    text = f"{where or 'the output'}: {error.strerror or error}"
    if error.errno in _FULL:
        return Unavailable(text, remedy="Make room there. What was asked for may be done: look before you ask again.")
    if error.errno in _FORBIDDEN:
        return Refused(text, remedy="Run cox as a user who may, or name another place.")
    if error.errno in _NO_PLACE:
        return InvalidInput(text, remedy="Name another place.")
    return CoxswainError(text)
