"""A fleet file from items: always the same text for the same fleet, with everything that a file can say and no secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from coxswain.declare.items import Item, Key
from coxswain.declare.schema import FIELDS, FORMAT

__all__ = ["document", "write"]

_POLICY = ("forwarding", "masquerade", "isolation")
_SILENT = frozenset({"server", "host_key", "all_nodes", "node", "path", "fallbacks"})
"""Empty, these say nothing; any other field does, as it may be another one where the file is applied."""

_SECTIONS = {"servers": "server", "nodes": "node", "paths": "path", "users": "user"}
_INNER = {"user": ("devices", "device"), "device": ("profiles", "profile")}


def document(items: Sequence[Item]) -> dict[str, Any]:
    """Items of one kind are in the order of their keys. What a file can leave out without a loss is left out."""
    of: dict[tuple[str, Key], list[Item]] = {}
    for item in sorted(items, key=lambda i: i.key):
        of.setdefault((item.kind, item.key[:-1]), []).append(item)
    sections = {name: [_entry(item, of) for item in of.get((kind, ()), [])] for name, kind in _SECTIONS.items()}
    return {"fleet": FORMAT, **sections}


def write(document: dict[str, Any]) -> str:
    """The text of a file."""
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)


def _entry(item: Item, of: Mapping[tuple[str, Key], Sequence[Item]]) -> dict[str, Any]:
    table = FIELDS[item.kind]
    entry: dict[str, Any] = {}
    for name, field in table.items():
        value = item.fields.get(name, field.default)
        if name not in _POLICY and not (name in _SILENT and value == field.default):
            entry[name] = list(value) if isinstance(value, (list, tuple)) else value
    if item.kind == "node":
        entry["policy"] = {name: item.fields[name] for name in _POLICY}
    section, kind = _INNER.get(item.kind, ("", ""))
    inner = [_entry(i, of) for i in of.get((kind, item.key), [])] if section else []
    return entry | ({section: inner} if inner else {})
