"""The links of nodes as actors: those that fell are found among a thousand, by name and page by page."""

from __future__ import annotations

from typing import Any

from coxswain.api.areas.system import chosen_links
from tests.fleet import Controller
from tests.support import an_addr, eventually

QUIET = {
    "kind": "worker", "strategy": "", "state": "running", "incarnation": 1, "restarts": 0, "uptime_s": 9.0, "mailbox": 0,
    "busy_s": 0.0, "busy_with": "", "zombies": 0, "last_failure": "", "last_failure_at": 0.0, "children": [],
}  # fmt: skip
NAMES = {f"nod_{number}": f"n{number:04d}" for number in range(1_000)}


def tree(**fell: dict[str, Any]) -> dict[str, Any]:
    links = [QUIET | {"id": f"node_link:{key}"} | fell.get(key, {}) for key in reversed(NAMES)]
    return QUIET | {
        "id": "root",
        "children": [QUIET | {"id": "fleet", "restarts": 9}, QUIET | {"id": "node_links", "children": links}],
    }


def test_of_a_thousand_links_those_that_fell_or_do_not_run_are_told() -> None:
    whole = tree(nod_7={"restarts": 2, "last_failure": "x"}, nod_900={"state": "backing_off"}, nod_3={"incarnation": 4})
    told = chosen_links(whole, NAMES)
    assert [(link["name"], link["node_id"], link["restarts"], link["last_failure"]) for link in told] == [
        ("n0007", "nod_7", 2, "x"),
        ("n0900", "nod_900", 0, ""),
    ]
    assert chosen_links(whole, NAMES, wanted="N09")[0]["name"] == "n0900"
    assert chosen_links(whole, NAMES, after="n0007") == told[1:]
    assert chosen_links(tree(), NAMES) == []


def test_any_link_is_found_by_the_name_or_id_of_its_node() -> None:
    every = chosen_links(tree(), NAMES, every=True)
    assert [link["name"] for link in every] == sorted(NAMES.values())
    assert [link["name"] for link in chosen_links(tree(), NAMES, every=True, wanted="099")] == [
        "n0099",
        *(f"n099{d}" for d in range(10)),
    ]
    assert [link["name"] for link in chosen_links(tree(), NAMES, every=True, wanted="nod_42")] == ["n0042"]


def test_who_has_no_name_just_now_is_told_by_its_id() -> None:
    assert [link["name"] for link in chosen_links(tree(nod_5={"restarts": 1}), {})] == ["nod_5"]


def test_they_are_answered_in_pages_also_while_the_fleet_is_away(controller: Controller) -> None:
    client = controller.client
    ids = [client.post("/api/nodes", {"name": f"link-{n}", "control_addr": an_addr("127.0.0.1")})["id"] for n in range(3)]
    eventually(lambda: len(client.get("/api/tree/links?all=true")) == 3)
    eventually(lambda: client.get("/api/tree/links") == [])  # those that start are told
    assert [link["name"] for link in client.get("/api/tree/links?all=true&limit=2")] == ["link-0", "link-1"]
    assert [link["name"] for link in client.get("/api/tree/links?all=true&limit=2&after=link-1")] == ["link-2"]
    client.post("/api/chaos", {"actor": f"node_link:{ids[1]}", "how": "raise"})
    (fallen,) = eventually(lambda: client.get("/api/tree/links"))
    assert (fallen["name"], fallen["id"]) == ("link-1", f"node_link:{ids[1]}")
    assert "chaos: told to raise" in fallen["last_failure"]
    client.post("/api/chaos", {"actor": "fleet", "how": "hang", "seconds": 4})
    assert [link["name"] for link in client.get("/api/tree/links")] in ([ids[1]], ["link-1"])
