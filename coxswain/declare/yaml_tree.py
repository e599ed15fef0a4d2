"""YAML with line numbers, and without what nobody should write in a fleet file: aliases, tags, keys that stand twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import yaml

from coxswain.errors import InvalidInput

__all__ = ["Tree", "parse", "wrong"]

_MAX_BYTES = 32 * 1024 * 1024
_MAX_DEPTH = 20
_BOOL, _INT, _NULL = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:int", "tag:yaml.org,2002:null"
_STR = "tag:yaml.org,2002:str"
_TRUE = frozenset({"true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class Tree:
    """A value with its place: ``value`` is text, a number, true or false, None, a list or a dict of trees."""

    value: Any
    line: int
    path: str


def wrong(file: str, tree: Tree, problem: str) -> InvalidInput:
    """An error that names the place: ``fleet.yaml:12: nodes[0].name: …``."""
    path = f" {tree.path}:" if tree.path else ""
    return InvalidInput(f"{file}:{tree.line}:{path} {problem}")


def parse(raw: bytes, file: str) -> Tree:
    """Raises ``InvalidInput`` with the line, for whatever is not plain YAML."""
    if len(raw) > _MAX_BYTES:
        raise InvalidInput(f"{file}: is larger than {_MAX_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")
        for event in yaml.parse(text, yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                line = event.start_mark.line + 1 if event.start_mark is not None else 1
                raise InvalidInput(f"{file}:{line}: anchors and aliases are not taken; write it out")
        loader = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
        root = yaml.compose(text, loader)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file}: is not UTF-8 (byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{mark.line + 1}:" if mark is not None else ""
        raise InvalidInput(f"{file}:{place} {_problem(error, text)}") from None
    except (yaml.YAMLError, RecursionError):
        raise InvalidInput(f"{file}: is not YAML") from None
    if root is None:
        return Tree({}, 1, "")
    return _tree(root, "", file, 0)


def _problem(error: yaml.MarkedYAMLError, text: str) -> str:
    """In the parser's words; of some they are but half, and the other half is elsewhere."""
    problem, mark = error.problem or "is not YAML", error.problem_mark
    if problem.startswith("but "):
        problem = f"{error.context}, {problem}"
    line = text.splitlines()[mark.line : mark.line + 1] if mark is not None else []
    return f"{problem} (a tab; indent with spaces)" if line and line[0].lstrip(" ").startswith("\t") else problem


def _tree(node: yaml.Node, path: str, file: str, depth: int) -> Tree:
    line = node.start_mark.line + 1
    here = Tree(None, line, path)
    if depth > _MAX_DEPTH:
        raise wrong(file, here, "is nested too deeply")
    if isinstance(node, yaml.ScalarNode):
        return Tree(_scalar(node, here, file), line, path)
    if isinstance(node, yaml.SequenceNode):
        return Tree([_tree(item, f"{path}[{i}]", file, depth + 1) for i, item in enumerate(node.value)], line, path)
    assert isinstance(node, yaml.MappingNode)  # noqa: S101 - there are no others
    found: dict[str, Tree] = {}
    for key_node, value_node in node.value:
        place = Tree(None, key_node.start_mark.line + 1, path)
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _STR:
            raise wrong(file, place, "keys must be plain words")
        name = key_node.value
        if name in found:
            raise wrong(file, place, f"{name[:60]!r} stands twice")
        value = _tree(value_node, f"{path}.{name}" if path else name, file, depth + 1)
        found[name] = replace(value, line=place.line)  # that of the key, which what is below it may not be on
    return Tree(found, line, path)


def _scalar(node: yaml.ScalarNode, here: Tree, file: str) -> Any:
    if node.tag == _STR:
        return node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return node.value.lower() in _TRUE
    if node.tag == _INT and node.value.lstrip("+-").isdigit() and len(node.value) < 20:
        return int(node.value)
    raise wrong(file, here, f"{node.value[:60]!r} is read as something other than text; put it in quotes")
