"""What a fleet file is made of: items of a kind, each with a key that names it and fields that say how it should be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coxswain.errors import Conflict

__all__ = ["KINDS", "Item", "Key", "led_to", "told_apart", "unready"]

KINDS = ("server", "node", "path", "user", "device", "profile")
"""In the order in which they are made; they are removed in the reverse one."""

Key = tuple[str, ...]
"""Names, the owner's first: ``("ann@example.org", "phone", "home")`` is a profile."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of the fleet.

    Attributes:
        fields: what is said of it; what is left out is as it is, or takes the default where it is new.
        where: its place in the file, as ``12: nodes[0]``; empty for what was read from a controller.
        id, version: of what was read from a controller.
    """

    kind: str
    key: Key
    fields: dict[str, Any]
    where: str = ""
    id: str = ""
    version: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def title(self) -> str:
        return f"{self.kind} {' / '.join(self.key)}"


_LEADS = {"server": "server", "node": "node", "path": "path", "hops": "node", "fallbacks": "node"}


def led_to(fields: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """To what these fields of an item lead: the field, the kind of what it names, the name."""
    for field_name, kind in _LEADS.items():
        said = fields.get(field_name) or ()
        for name in (said,) if isinstance(said, str) else said:
            yield field_name, kind, name


def unready(node: Mapping[str, Any], *, standby: bool = False) -> str:
    """What keeps a path from being built over a node, as the API has it, or with it as a fallback; empty: nothing."""
    if standby and node["wg_public_key"]:
        return ""
    if not node["enrolled"]:
        return f"is not enrolled (cox nodes enroll {node['name']} --csr FILE)"
    if not node["enabled"]:
        return f"is disabled (cox nodes enable {node['name']})"
    return "" if node["wg_public_key"] else f"was not reached yet (cox nodes show {node['name']})"


_TELL_APART = {
    "server": "Give one of them another name: cox servers add ADDRESS --name NAME",
    "user": "Rename one of them, or give one an e-mail address: cox users edit {id}",
    "device": "Rename one of them: cox devices edit {id} --name NAME",
}


def told_apart(present: Sequence[Item], named: Iterable[tuple[str, Key]]) -> None:
    """Raises ``Conflict`` if one of these names is that of two things: devices of a user may have the same one, as clients
    choose it that join, and users without an e-mail address and phone number.
    """
    wanted = set(named)
    seen: dict[tuple[str, Key], Item] = {}
    doubles: dict[str, tuple[Item, Item]] = {}
    for item in present:
        name = (item.kind, item.key)
        other = seen.setdefault(name, item)
        if other is not item and name in wanted:
            doubles.setdefault(item.title, (other, item))
    if not doubles:
        return
    (title, (other, item)), *others = doubles.items()
    more = f"; so there are of {', '.join(name for name, _ in others[:20])}" if others else ""
    raise Conflict(
        f"{title}: there are two of that name ({other.id} and {item.id}), and a file could not tell them apart{more}",
        remedy=_TELL_APART.get(item.kind, "Rename one of them.").format(id=item.id),
    )
