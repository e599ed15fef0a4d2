"""What is told of the service tree is what ``tree.build`` makes: the picture in its module, and docs/architecture.md."""

from __future__ import annotations

import ast
import inspect
import re

from actors import tree
from tests.fleet import ROOT


def _built() -> list[str]:
    """The names of all children of ``build``, in the order in which they start."""
    body = ast.parse(inspect.getsource(tree.build))
    calls = [node for node in ast.walk(body) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "spec"]
    calls.sort(key=lambda call: call.lineno)
    names = [str(ast.literal_eval(call.args[0])) for call in calls]
    within = names[: names.index("event_hub")]  # the children of ``network`` are named first
    rest = names[len(within) :]
    at = rest.index("network") + 1
    return rest[:at] + within + rest[at:]


def test_the_picture_shows_every_actor_in_order() -> None:
    assert re.findall(r"[├└]── (\w+)", tree.__doc__ or "") == _built()


def test_the_table_of_owners_has_every_actor_in_order() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().partition("## Who owns what")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == _built()
