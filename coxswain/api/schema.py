"""JSON Schema (2020-12, as OpenAPI 3.1 has it) from short words, for the route table.

A named shape (``shape``) becomes a component of the OpenAPI document; others refer to it by what ``shape`` returned.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BOOL",
    "COMPONENTS",
    "INT",
    "NUMBER",
    "STAMP",
    "TEXT",
    "Json",
    "array",
    "choice",
    "limited",
    "nullable",
    "obj",
    "shape",
]

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
INT: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
BOOL: Json = {"type": "boolean"}
STAMP: Json = {"type": "string", "format": "date-time"}

COMPONENTS: dict[str, Json] = {}
"""All named shapes, by name."""


def obj(required: dict[str, Json] | None = None, optional: dict[str, Json] | None = None) -> Json:
    """An object with exactly these keys."""
    required, optional = required or {}, optional or {}
    found: Json = {"type": "object", "properties": required | optional, "additionalProperties": False}
    return found | {"required": list(required)} if required else found


def shape(name: str, schema: Json) -> Json:
    """Gives a schema a name; returns the reference to it."""
    if COMPONENTS.setdefault(name, schema) != schema:
        raise ValueError(f"there are two shapes named {name}")
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Json) -> Json:
    return {"type": "array", "items": items}


def choice(*values: str) -> Json:
    return {"type": "string", "enum": list(values)}


def nullable(schema: Json) -> Json:
    if set(schema) <= {"type", "format"}:
        return schema | {"type": [schema["type"], "null"]}
    return {"oneOf": [schema, {"type": "null"}]}


def limited(low: int, high: int) -> Json:
    """A whole number from ``low`` to ``high``."""
    return {"type": "integer", "minimum": low, "maximum": high}
