"""Files for browsers, from memory. Only what was there at the start is served, by its exact name: a path that leads out
of the directory is a name that is not known.
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable

__all__ = ["File", "StaticFiles"]

_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".webmanifest": "application/manifest+json"}
"""Where the machine's own table may say something else, or nothing."""


@dataclass(frozen=True, slots=True)
class File:
    """``etag`` is quoted, as the header wants it."""

    content: bytes = field(repr=False)
    media_type: str = ""
    etag: str = ""


class StaticFiles:
    """Thread-safe: it never changes."""

    def __init__(self, root: Traversable) -> None:
        self._files = dict(_walk(root, ""))

    @staticmethod
    def of_package() -> StaticFiles:
        """Those that come with this release."""
        return StaticFiles(resources.files("coxswain").joinpath("static"))

    def get(self, name: str) -> File | None:
        """``name``: below the root, with ``/``."""
        return self._files.get(name)

    def __len__(self) -> int:
        return len(self._files)


def _walk(directory: Traversable, prefix: str) -> Iterator[tuple[str, File]]:
    for entry in directory.iterdir():
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.is_file():
            content = entry.read_bytes()
            yield (
                prefix + entry.name,
                File(content, _media_type(entry.name), f'"{hashlib.sha256(content).hexdigest()[:32]}"'),
            )


def _media_type(name: str) -> str:
    suffix = "." + name.rpartition(".")[2]
    found = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"{found}; charset=utf-8" if found.startswith("text/") else found
