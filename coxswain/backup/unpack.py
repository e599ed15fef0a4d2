"""Taking a backup apart, frame by frame, into whatever takes its members in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from coxswain.backup.archive import Begin, Data, Frame, Manifest, Page, read_frames
from coxswain.backup.create import FORMAT
from coxswain.backup.envelope import BackupSecret, Damaged, open_sealed
from coxswain.errors import InvalidInput, StoreTooNew
from coxswain.store.migrate import SCHEMA_VERSION

__all__ = ["Member", "Unpacked", "unpack"]


@dataclass(frozen=True, slots=True)
class Member:
    """One member. Its ``frames`` have to be taken before the next one is asked for."""

    name: str
    frames: Iterator[Data | Page]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A backup that is being read: what it says of itself, then its members, in order."""

    manifest: dict[str, Any]
    members: Iterator[Member]


def unpack(path: Path, secret: BackupSecret) -> Unpacked:
    """Opens a backup. Reading its members to the end is what proves it whole.

    Raises:
        InvalidInput: it cannot be opened, or takes the other kind of secret.
        KeyUnavailable: this secret does not open it.
        Damaged: it was cut or changed; also while members are read.
        StoreTooNew: a newer release made it.
    """
    try:
        source = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"backup: {path} cannot be read: {error.strerror}") from None
    frames = _frames(source, secret)
    first = next(frames)
    if not isinstance(first, Manifest):
        raise Damaged("the backup does not begin with its manifest")
    manifest = first.values
    if manifest.get("format") != FORMAT or int(manifest.get("schema", 0)) > SCHEMA_VERSION:
        raise StoreTooNew(
            f"the backup was made by coxswain {manifest.get('version')} (format {manifest.get('format')}, schema "
            f"{manifest.get('schema')}); this release takes format {FORMAT} and schemas up to {SCHEMA_VERSION}"
        )
    return Unpacked(manifest, _members(frames))


def _frames(source: BinaryIO, secret: BackupSecret) -> Iterator[Frame]:
    with source:
        yield from read_frames(open_sealed(source, secret))


def _members(frames: Iterator[Frame]) -> Iterator[Member]:
    following: Begin | None = None

    def content() -> Iterator[Data | Page]:
        nonlocal following
        for frame in frames:
            match frame:
                case Begin():
                    following = frame
                    return
                case Data() | Page():
                    yield frame
                case Manifest():
                    raise Damaged("the backup holds a second manifest")

    for _ in content():  # up to the first member there is nothing
        raise Damaged("the backup holds what belongs to nothing")
    while following is not None:
        begin, following = following, None
        inner = content()
        yield Member(begin.name, inner)
        for _ in inner:  # what nobody wanted
            pass
