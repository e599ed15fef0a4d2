"""Files that commands write. Those that hold secrets: 0600, and never in place of one that is there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from coxswain.errors import InvalidInput

__all__ = ["check_free", "file_stem", "write_private", "written"]


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
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)):
        raise InvalidInput(f"out: {path.parent} is no directory in which files can be made")


def _present(path: Path) -> InvalidInput:
    return InvalidInput(f"out: {path} is there already; remove it, or choose another name with --out")


@contextmanager
def written(out: str | None) -> Iterator[IO[str]]:
    """A file that is there when it is complete, and not otherwise; None: the standard output."""
    if out is None:
        yield sys.stdout
        return
    path = Path(out)
    draft = path.with_name(path.name + ".part")
    try:
        with draft.open("w", encoding="utf-8") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
