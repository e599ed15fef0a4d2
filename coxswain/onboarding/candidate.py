"""Which version is the program that an upgrade would install? Read from its bytes; it is never run on the controller."""

from __future__ import annotations

import mmap
import re
import threading
import zipfile
from pathlib import Path

from coxswain.onboarding.binary import normalise_version

__all__ = ["candidate_version"]

_GO_BUILD = b"\xff Go buildinf:"
"""Where the Go linker has put its build information, at a multiple of 16 (relay-contract.md 7.6)."""

_GO_INLINE, _GO_HEAD, _SENTINEL = 2, 32, 16
_MOST_LENGTH = 4
"""Bytes of a string's length: up to 256 MB."""

_MODULE = re.compile(rb"(?:^|\n)mod\t[^\t\n]*\t([^\t\n]*)")
_LOOSE = re.compile(rb"\nmod\t[^\t\n]{1,200}\t(v[^\t\n]{1,80})\t")
"""The same line somewhere in a program that is none of Go's, but says what it is as those do."""

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
            modules = _go_modules(content)
            match = _LOOSE.search(content) if modules is None else _MODULE.search(modules)
            return normalise_version(match[1].decode("ascii", "replace")) if match else ""
    except (OSError, ValueError, zipfile.BadZipFile):
        return ""


def _go_modules(content: mmap.mmap) -> bytes | None:
    """What a Go program was built of, a line each. None: it is no Go program, or one of before Go 1.18."""
    at = content.find(_GO_BUILD)
    while at >= 0:
        flags = content[at + len(_GO_BUILD) + 1 : at + len(_GO_BUILD) + 2]
        if at % 16 == 0 and flags and flags[0] & _GO_INLINE:
            _, after = _string(content, at + _GO_HEAD)
            modules, _ = _string(content, after)
            return modules[_SENTINEL:-_SENTINEL]
        at = content.find(_GO_BUILD, at + 1)
    return None


def _string(content: mmap.mmap, at: int) -> tuple[bytes, int]:
    """One with its length before it, seven bits a byte, and where it ends; empty if it is cut off or none."""
    length = shift = 0
    for byte in content[at : at + _MOST_LENGTH]:
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            end = at + length
            return (content[at:end], end) if end <= len(content) else (b"", len(content))
    return b"", len(content)
