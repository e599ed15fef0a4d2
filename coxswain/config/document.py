"""One YAML document as dotted names, values and line numbers.

Only what a configuration needs is taken: mappings, scalars, and lists. Anchors, aliases, tags and repeated keys are refused,
because each of them can make a file mean something else than it seems to say (or, in a few lines, fill the memory).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coxswain.errors import InvalidInput

if TYPE_CHECKING:
    import yaml

__all__ = ["MAX_BYTES", "Found", "parse", "read"]

MAX_BYTES = 256 * 1024
_DEEPEST = 8
"""Levels of nesting; keys have at most three."""


@dataclass(frozen=True, slots=True)
class Found:
    """One value of the document. ``line`` counts from 1. ``section``: it is a mapping without keys, or nothing at all."""

    value: Any
    line: int
    section: bool = False


def read(path: Path) -> bytes:
    """The file's bytes. Raises ``InvalidInput`` when it is not there, not readable or too large."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(
            f"the configuration {path} cannot be read: {error.strerror}", remedy="Make one with: cox init --personal"
        ) from None
    if len(raw) > MAX_BYTES:
        raise InvalidInput(f"the configuration {path} is larger than {MAX_BYTES} bytes")
    return raw


def parse(raw: bytes, where: str, problems: list[str]) -> dict[str, Found]:
    """Takes the document apart. What is wrong with single keys is added to ``problems``.

    Raises:
        InvalidInput: it is no YAML, or no mapping.
    """
    import yaml  # noqa: PLC0415 - commands that need no configuration do not pay for it

    loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _refuse_tricks(yaml.parse(raw, Loader=loader), where)
        root = yaml.compose(raw, Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        raise InvalidInput(f"{where}{line}: this is not YAML: {reason}") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise InvalidInput(f"{where}: this is no mapping of keys to values")
    found: dict[str, Found] = {}
    _walk(root, "", found, problems)
    return found


def _refuse_tricks(events: Any, where: str) -> None:
    """Looks at the events alone, before anything is built from them."""
    import yaml  # noqa: PLC0415

    depth = 0
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise InvalidInput(f"{where}, line {line}: more than {_DEEPEST} levels deep")
        if getattr(event, "anchor", None) is not None:
            raise InvalidInput(f"{where}, line {line}: anchors and aliases (& and *) are not taken; write the value out")
        if getattr(event, "tag", None) is not None:
            raise InvalidInput(f"{where}, line {line}: tags (!) are not taken; write a plain value")


def _walk(mapping: yaml.MappingNode, prefix: str, found: dict[str, Found], problems: list[str]) -> None:
    import yaml  # noqa: PLC0415

    constructor = yaml.SafeLoader("")
    lines: dict[str, int] = {}
    for key, value in mapping.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            problems.append(f"line {line}: a key has to be a plain word")
            continue
        name = prefix + key.value
        if name in lines:
            problems.append(f"{name[:100]} (line {line}): stands in line {lines[name]} already")
            continue
        lines[name] = line
        if isinstance(value, yaml.MappingNode):
            if value.value:
                _walk(value, f"{name}.", found, problems)
            else:
                found[name] = Found(None, line, section=True)
            continue
        try:
            built = constructor.construct_object(value, deep=True)
        except (yaml.YAMLError, ValueError):  # such as a date that is none; the reason would show the value
            problems.append(f"{name[:100]} (line {line}): the value cannot be read; put it in quotes")
            continue
        found[name] = Found(built, line, section=built is None)
