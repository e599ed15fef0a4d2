"""The map: near places share a pin, which looks and sounds like the worst of it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coxswain.regions import region
from coxswain.web.fleet_map import fleet_map
from coxswain.web.render import render
from coxswain.web.worldmap import HEIGHT, WIDTH

STATUSES = ("active", "pending", "unreachable", "stopped", "provisioning", "error")


def node(number: int, status: str = "active", region: str = "fra1") -> dict[str, Any]:
    return {"id": f"nod_{number}", "name": f"n{number}", "status": status, "region": region}


def place(latitude: float, longitude: float, *nodes: dict[str, Any], city: str = "Somewhere") -> dict[str, Any]:
    return {
        "latitude": latitude,
        "longitude": longitude,
        "city": city,
        "country": "XX",
        "source": "region",
        "nodes": list(nodes),
    }


def found(*places: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"places": list(places), "elsewhere": [], "relays": [], "controller": None, "credit": None} | more


def test_a_pin_is_as_bad_as_its_worst_node_and_names_that_one_first() -> None:
    nodes = [node(number) for number in range(8)] + [node(8, "unreachable")]
    (pin,) = fleet_map(found(place(50.1, 8.7, *nodes, city="Frankfurt"))).pins
    assert pin.tone == "bad"
    assert pin.words.startswith("Frankfurt: n8 unreachable, n0 active")
    assert pin.words.endswith("and 3 more")
    assert pin.href == "/?region=fra1#nodes-title"


def test_near_places_share_a_pin_and_its_link_is_honest() -> None:
    here = found(place(50.1, 8.7, node(1)), place(50.4, 8.9, node(2, region="")), place(1.3, 103.8, node(3)))
    near, far = fleet_map(here).pins
    assert [n["id"] for n in near.nodes] == ["nod_1", "nod_2"]
    assert near.href == "/?region=%2Cfra1#nodes-title", "those without a region as well"
    assert far.href == "/nodes/nod_3"


def relay(number: int, latitude: float, longitude: float, status: str = "active") -> dict[str, Any]:
    at = {"latitude": latitude, "longitude": longitude, "city": "Elsewhere", "country": "XX", "source": "region"}
    return {"id": f"rly_{number}", "name": f"r{number}", "status": status, **at}


def test_relays_share_pins_with_nodes_or_have_their_own() -> None:
    relays = [relay(1, 50.2, 8.6, "error"), relay(2, 1.3, 103.8), relay(3, -33.9, 151.2), relay(4, -33.8, 151.1)]
    mixed, one, two = fleet_map(found(place(50.1, 8.7, node(1), city="Frankfurt"), relays=relays)).pins
    assert (mixed.tone, mixed.href) == ("bad", "/nodes/nod_1")
    assert mixed.words == "Frankfurt and around: relay r1 error, n1 active"
    assert (one.tone, one.href, one.words) == ("good", "/relays/rly_2", "Elsewhere: relay r2 active")
    assert two.href == "/relays"


def test_the_control_path_is_an_arc_from_the_controller_over_its_relays() -> None:
    own = {"latitude": 64.1, "longitude": -21.9, "city": "Reykjavik"}
    relays = [relay(1, 50.2, 8.6), relay(2, 1.3, 103.8)]
    control = {"name": "north", "hops": ["rly_1", "rly_2", "rly_9"]}
    here = found(place(50.1, 8.7, node(1)), relays=relays, controller=own)
    drawn = fleet_map(here, control=control)
    assert [(arc.words, arc.is_control) for arc in drawn.arcs] == [("control path north", True)] * 2
    assert drawn.has_control
    assert len(fleet_map(here | {"controller": None}, control=control).arcs) == 1
    assert not fleet_map(here).has_control
    assert b"how the controller reaches nodes" in render("_map.html", {"map": drawn})


def test_paths_are_arcs_between_pins_that_are_there() -> None:
    here = found(place(50.1, 8.7, node(1), node(4)), place(1.3, 103.8, node(2)))
    hops = ["nod_1", "nod_4", "nod_2", "nod_9"]

    def path(name: str, color: str, hops: list[str], exit_: str = "") -> dict[str, Any]:
        return {"name": name, "hops": hops, "color": color, "exit": {"node_id": exit_ or hops[-1]}}

    paths = [path("p", "#123456", hops), path("q", "", hops[2:] + hops[:1])]
    drawn = fleet_map(here, paths)
    assert [arc.words for arc in drawn.arcs] == ["path p", "path q"], "no arc from a pin to itself, or to what is nowhere"
    assert drawn.arcs[0].color == "#123456"
    assert drawn.arcs[1].color.startswith("#")
    assert not fleet_map(here, [path("r", "", ["nod_1", "nod_2"], "nod_4")]).arcs, "it goes where the path leaves now"


def test_a_pin_of_several_cities_says_so_and_one_without_any_region_leads_to_all() -> None:
    here = found(
        place(50.1, 8.7, node(1, region="fra1"), city="Frankfurt"),
        place(52.4, 4.9, node(2, region="ams3"), city="Amsterdam"),
        place(1.3, 103.8, node(3, region=""), node(4, region=""), city="Singapore"),
    )
    near, far = fleet_map(here).pins
    assert near.words.startswith("Frankfurt and around: ")
    assert near.href == "/?region=ams3%2Cfra1#nodes-title"
    assert (far.words, far.href) == ("Singapore: n3 active, n4 active", "#nodes-title")


def test_pins_never_cover_each_other() -> None:
    codes = ("fra1", "ams3", "lon1", "hel1", "nbg1", "cdg", "nyc1", "tor1", "ash")
    known = [at for at in map(region, codes) if at is not None]
    pins = fleet_map(found(*(place(at.latitude, at.longitude, node(n)) for n, at in enumerate(known)))).pins
    for first in pins:
        for second in pins:
            apart = ((first.x - second.x) ** 2 + (first.y - second.y) ** 2) ** 0.5
            assert first is second or apart >= 200


def test_credit_and_controller_are_shown() -> None:
    credit = {"text": "IP Geolocation by <Somebody>", "url": "https://example.org"}
    here = found(
        place(50.1, 8.7, node(1)), credit=credit, controller={"latitude": 64.1, "longitude": -21.9, "city": "Reykjavik"}
    )
    text = render("_map.html", {"map": fleet_map(here | {"elsewhere": [node(5)]})}).decode()
    assert "IP Geolocation by &lt;Somebody&gt;</a>" in text
    assert "The controller, Reykjavik" in text
    assert "1 not on the map" in text


@given(st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180), st.sampled_from(STATUSES)), max_size=40))
def test_every_node_is_on_one_pin_on_the_map(spots: list[tuple[float, float, str]]) -> None:
    places = [place(lat, lon, node(number, status)) for number, (lat, lon, status) in enumerate(spots)]
    pins = fleet_map(found(*places)).pins
    assert sorted(n["id"] for pin in pins for n in pin.nodes) == sorted(f"nod_{number}" for number in range(len(spots)))
    assert all(0 <= pin.x <= WIDTH and 0 <= pin.y <= HEIGHT for pin in pins)
