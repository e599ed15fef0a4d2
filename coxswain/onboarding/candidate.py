"""Which version is the program that an upgrade would install? Read from its bytes; it is never run on the controller."""

from __future__ import annotations

import mmap
import re
import threading
import zipfile
from pathlib import Path

from coxswain.onboarding.binary import normalise_version

__all__ = ["candidate_version"]

_GO_MODULE = re.compile(rb"\nmod\t[^\t\n]{1,200}\t(v[^\t\n]{1,80})\t")
"""Of the build information that the Go linker embeds."""

_WHEEL = re.compile(r"(?:^|/)coxswain-([0-9][^/]*)\.dist-info/")

_lock = threading.Lock()
_known: dict[str, tuple[tuple[int, int], str]] = {}


def candidate_version(path: str) -> str:
    """``v`` and a semantic version; empty: unknown. Read again when the file changed."""
    if not path:
        return ""
    try:
        found = Path(path).stat()
    except OSError:
        return ""
    mark = (found.st_mtime_ns, found.st_size)
    with _lock:
        known = _known.get(path)
        if known is None or known[0] != mark:
            known = (mark, _read(Path(path)))
            _known[path] = known
        return known[1]


def _read(path: Path) -> str:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = (_WHEEL.search(name) for name in archive.namelist())
                return next((normalise_version(found[1]) for found in names if found), "")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            match = _GO_MODULE.search(content)
            return normalise_version(match[1].decode("ascii", "replace")) if match else ""
    except (OSError, ValueError, zipfile.BadZipFile):
        return ""
