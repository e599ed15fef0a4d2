"""The document is made from the table, whole, and says what is so."""

from __future__ import annotations

from typing import Any

from coxswain.api.openapi import document, operation_id, statuses
from coxswain.api.route import Scope
from coxswain.api.schema import COMPONENTS
from coxswain.api.table import ROUTES
from tests.fleet import Controller


def test_it_has_every_route_with_all_that_it_may_answer() -> None:
    made = document(ROUTES, "1.2.3")
    assert (made["openapi"], made["info"]["version"]) == ("3.1.0", "1.2.3")
    operations = [operation for path in made["paths"].values() for operation in path.values()]
    assert len(operations) == len(ROUTES)
    assert len({operation["operationId"] for operation in operations}) == len(ROUTES)
    for route in ROUTES:
        path = route.path.replace(":path", "")
        operation = made["paths"][path][route.method.lower()]
        assert list(operation["responses"]) == [str(status) for status in statuses(route)]
        assert bool(operation["security"]) == (route.scope is not Scope.NONE)
        assert operation["operationId"] == operation_id(route)


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if "$ref" in value else set()
        return found.union(*(references(part) for part in value.values()))
    if isinstance(value, list):
        return set().union(*(references(part) for part in value))
    return set()


def test_no_reference_leads_nowhere_and_no_shape_is_idle() -> None:
    made = document(ROUTES, "1")
    names = {reference.removeprefix("#/components/schemas/") for reference in references(made)}
    assert names == {"Problem", *COMPONENTS, "#/components/headers/Ignored"}


def test_it_is_served(webbed: Controller) -> None:
    served = webbed.client.get("/api/openapi.json")
    assert served == document(ROUTES, webbed.client.get("/api/version")["version"])


def test_whatever_may_change_something_names_its_audit_action() -> None:
    """That each of them leaves its record is checked in every test that uses the API (``tests/conftest.py``)."""
    harmless = {
        "POST /api/network-policy/preview",
        "POST /api/paths/plan",
        "POST /api/devices/{key}/bind/plan",
    }
    assert {f"{route.method} {route.path}" for route in ROUTES if route.unsafe and not route.audit} == harmless
    assert not [route.path for route in ROUTES if route.audit and not route.unsafe]


def test_every_list_comes_in_pages() -> None:
    lists = [route for route in ROUTES if route.method == "GET" and (route.returns or {}).get("type") == "array"]
    assert len(lists) > 10
    for route in lists:
        assert {"after", "limit"} <= {param.name for param in route.query}, route.path


def test_an_operation_in_place_of_its_outcome_is_documented() -> None:
    made = document(ROUTES, "1")
    later = [route for route in ROUTES if 202 in route.also]
    assert len(later) > 10
    for route in later:
        found = made["paths"][route.path][route.method.lower()]
        accepted = found["responses"]["202"]["content"]["application/json"]["schema"]
        assert accepted == {"$ref": "#/components/schemas/Operation"}, route.path
        assert [p["name"] for p in found["parameters"] if p["in"] == "header"] == ["Prefer"], route.path
