"""The map: who shares a pin, where a pin leads, and what a path looks like."""

from __future__ import annotations

from typing import Any

from coxswain.web.fleet_map import fleet_map


def node(name: str, region: str, status: str = "active", **more: Any) -> dict[str, Any]:
    return {"id": f"nod_{name}", "name": name, "region": region, "status": status, **more}


def path(name: str, *hops: str, color: str = "") -> dict[str, Any]:
    return {"name": name, "hops": [f"nod_{hop}" for hop in hops], "color": color}


def test_near_nodes_share_a_pin_that_shows_the_worst_of_them_and_leads_to_all() -> None:
    made = fleet_map([node("a", "fra1"), node("b", "ams3", "unreachable"), node("c", "syd1")])
    shared, alone = made.pins
    assert [n["name"] for n in shared.nodes] == ["a", "b"]
    assert (shared.tone, shared.href) == ("bad", "/?region=ams3%2Cfra1")
    assert shared.words == "Frankfurt and around: a active, b unreachable"
    assert (alone.tone, alone.href, alone.words) == ("good", "/nodes/nod_c", "Sydney: c active")


def test_one_place_is_called_by_its_name_alone() -> None:
    (pin,) = fleet_map([node(f"n{number}", "fra1") for number in range(9)]).pins
    assert pin.words.startswith("Frankfurt: n0 active, ")
    assert pin.words.endswith(" and 3 more")
    assert pin.href == "/?region=fra1"


def test_pins_never_cover_each_other() -> None:
    made = fleet_map([node(code, code) for code in ("fra1", "ams3", "lon1", "hel1", "nbg1", "cdg", "nyc1", "tor1", "ash")])
    for first in made.pins:
        for second in made.pins:
            apart = ((first.x - second.x) ** 2 + (first.y - second.y) ** 2) ** 0.5
            assert first is second or apart >= 200


def test_a_place_that_was_looked_up_wins_over_the_region_and_the_unknown_are_counted() -> None:
    tokyo = {"latitude": 35.7, "longitude": 139.7, "city": "", "country": "JP"}
    made = fleet_map([node("a", "fra1", location=tokyo), node("b", "basement")])
    assert [pin.city for pin in made.pins] == ["JP"]
    assert [n["name"] for n in made.elsewhere] == ["b"]


def test_a_path_is_an_arc_for_each_hop_in_its_own_colour_or_in_one_of_the_palette() -> None:
    nodes = [node("a", "fra1"), node("b", "nyc1"), node("c", "sgp1"), node("d", "fra1")]
    paths = [path("mine", "a", "b", "c", color="#123456"), path("theirs", "b", "c"), path("at-home", "a", "d")]
    made = fleet_map(nodes, paths)
    assert [arc.words for arc in made.arcs] == ["path mine", "path mine", "path theirs"], "no arc from a pin to itself"
    assert [arc.color for arc in made.arcs[:2]] == ["#123456", "#123456"]
    assert made.arcs[2].color.startswith("#")
    assert made.arcs[2].color != "#123456"
