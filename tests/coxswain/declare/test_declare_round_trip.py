"""Files against a real controller: what is applied is what is exported, and applying it again changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coxswain.cli.accounts import every
from coxswain.cli.client import RemoteError
from coxswain.declare.apply import Stopped, apply
from coxswain.declare.compare import compare
from coxswain.declare.items import Item
from coxswain.declare.present import read_present
from coxswain.declare.schema import read
from coxswain.declare.write import document
from tests.fleet import Controller

Cox = Callable[..., Result]
EMPTY = "fleet: 1\nnodes: []\nusers: []\n"


_NAME = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,8}", fullmatch=True)
_LABEL = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1, max_size=12).filter(
    lambda text: text.strip() and text.isprintable() and len(text.strip().encode()) <= 40
)


def _is_dialable(address: IPv4Address | IPv6Address) -> bool:
    address = getattr(address, "ipv4_mapped", None) or address
    return not (address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255")


_IP = st.ip_addresses().filter(_is_dialable).map(str)
_WAYS = ("forwarding", "masquerade", "isolation")


@st.composite
def _node(draw: st.DrawFn, name: str) -> dict[str, Any]:
    forwarding = draw(st.booleans())
    policy = {way: forwarding and draw(st.booleans()) for way in _WAYS} | {"forwarding": forwarding}
    return {
        "name": name,
        # of each name another one: an agent is one node, and nodes that go do so after others came
        "control_addr": f"h{name.encode().hex()}.example.org:{draw(st.integers(1, 65535))}",
        "region": draw(st.sampled_from(["", "nl", "de"])),
        # by the name: it cannot be another one where the second fleet has a node of the same name
        "public_ip": f"198.51.100.{sum(name.encode()) % 250 + 1}" if len(name) % 2 else "",
        "endpoint_ips": draw(st.lists(_IP, max_size=3, unique=True)),
        "endpoint_ports": draw(st.sampled_from(["", "20000-29999", "1024-51819"])),
        "enabled": draw(st.booleans()),
        "policy": policy,
    }


@st.composite
def _device(draw: st.DrawFn, name: str, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    made: list[dict[str, Any]] = []
    for profile in draw(st.lists(_LABEL.map(str.strip), max_size=2, unique=True)) if nodes else []:
        node = draw(st.sampled_from(nodes))
        pool = node["endpoint_ips"] or [ip for ip in [node["public_ip"]] if ip]
        entry = draw(st.lists(st.sampled_from(pool), max_size=2, unique=True)) if pool else []
        protocol = draw(st.sampled_from(["amneziawg", "xray-reality", "both"]))
        made.append({"name": profile, "node": node["name"], "entry_ips": entry, "protocol": protocol})
    device: dict[str, Any] = {
        "name": name,
        "platform": draw(st.sampled_from(["", "android"])),
        "status": draw(st.sampled_from(["active", "suspended"])),
    }
    if not made and draw(st.booleans()):
        device["all_nodes"] = True
    return device | ({"profiles": made} if made else {})


@st.composite
def fleets(draw: st.DrawFn) -> str:
    nodes = [draw(_node(name)) for name in draw(st.lists(_NAME, max_size=3, unique=True))]
    users = []
    for number, name in enumerate(draw(st.lists(_LABEL, max_size=3))):
        devices = [draw(_device(n, nodes)) for n in draw(st.lists(_LABEL.map(str.strip), max_size=2, unique=True))]
        user = {
            "name": name,
            "email": f"u{number}@example.org",
            "phone": draw(st.sampled_from(["", f"+4930{number}0000"])),
            "status": draw(st.sampled_from(["active", "suspended", "disabled"])),
        }
        users.append(user | ({"devices": devices} if devices else {}))
    return yaml.safe_dump({"fleet": 1, "nodes": nodes, "users": users}, allow_unicode=True)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=fleets(), second=fleets())
def test_what_is_applied_is_what_is_exported(cox: Cox, first: str, second: str) -> None:
    """Onto nothing, and onto another fleet."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    for text in (first, second):
        cox("apply", "-f", "-", "--prune", "--yes", text=text)
        again = json.loads(cox("plan", "-f", "-", "--json", text=text).stdout)
        assert again["changes"] == []
        exported = cox("export").stdout
        assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=exported).stdout)["changes"] == []
        # and from nothing, the export makes the same fleet again
        cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
        cox("apply", "-f", "-", "--yes", text=exported)
        assert cox("export").stdout == exported


def test_nothing_is_applied_where_nobody_can_be_asked(cox: Cox, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text("fleet: 1\nusers:\n- name: Ned\n")
    assert "Say --yes" in cox("apply", "-f", str(file), code=2).stderr
    cox("apply", "-f", str(file), text="n\n", code=1)
    assert "Ned" not in cox("users", "list").stdout
    assert "1 applied" in cox("apply", "-f", str(file), text="y\n").stdout


def test_a_phone_number_goes_over_to_somebody_else(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    user = "- {{name: {0}, email: {0}@example.org, phone: '{1}'}}\n"
    for numbers in (("", "+4930111222", "+4930111333"), ("+4930111222", "+4930111333", ""), ("", "", "+4930111222")):
        text = "fleet: 1\nusers:\n" + "".join(user.format(name, n) for name, n in zip("pqr", numbers, strict=True))
        cox("apply", "-f", "-", "--yes", text=text)
        assert cox("plan", "-f", "-", text=text).stdout.rstrip().endswith("The fleet is as the file says.")


def test_a_device_for_all_nodes_has_no_profiles(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    file = "fleet: 1\nnodes:\n- {{name: a-1, control_addr: a-1}}\nusers:\n- name: Abe\n  devices:\n  - {{name: phone{}}}\n"
    cox("apply", "-f", "-", "--yes", text=file.format(", profiles: [{name: x, node: a-1}]"))
    text = file.format(", all_nodes: true")
    assert "all_nodes: it has profile Abe / phone / x" in cox("plan", "-f", "-", text=text, code=5).stderr
    cox("apply", "-f", "-", "--yes", "--prune", text=text)
    assert cox("plan", "-f", "-", "--prune", text=text).stdout.rstrip().endswith("The fleet is as the file says.")


def test_nothing_is_done_unasked(cox: Cox) -> None:
    text = "fleet: 1\nusers:\n- name: Nobody asked\n"
    assert "give --yes" in cox("apply", "-f", "-", text=text, code=2).stderr
    assert "Nobody asked" not in cox("users", "list").stdout


def test_names_that_cannot_be_told_apart(cox: Cox, controller: Controller) -> None:
    """The API lets them in, for its callers; the command line does not."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    cox("users", "add", "Twin")
    assert "tells them apart" in cox("users", "add", "Twin", code=5).stderr
    controller.client.post("/api/users", {"name": "Twin"})
    assert "user Twin: there are two of that name" in cox("export", code=5).stderr
    for line in cox("users", "list").stdout.splitlines()[1:]:
        cox("users", "remove", line.split()[0], "--yes")


def test_devices_of_one_name_are_in_nobodys_way_who_does_not_name_them(cox: Cox, controller: Controller) -> None:
    """Clients that join are called alike, unless their users say otherwise."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    cox("users", "add", "Ann", "--email", "ann@example.org")
    for _ in range(2):
        controller.client.post("/api/users/ann@example.org/devices", {"name": "caravel-device"})
    assert "has a device named" in cox("devices", "add", "ann@example.org", "caravel-device", code=5).stderr
    person = "fleet: 1\nusers:\n- name: Ann\n  email: ann@example.org\n  devices: [{{name: {}}}]\n"
    cox("apply", "-f", "-", "--yes", text=person.format("laptop"))
    out = cox("plan", "-f", "-", text=person.format("laptop")).stdout
    assert out.count("· device ann@example.org / caravel-device") == 2

    for command in (("plan", "-f", "-"), ("export",)):
        problem, remedy = cox(*command, text=person.format("caravel-device"), code=5).stderr.splitlines()
        assert "device ann@example.org / caravel-device: there are two of that name" in problem
    for _ in range(2):
        controller.client.post("/api/users", {"name": "Twin"})
    said = cox("export", code=5).stderr
    assert "so there are of " in said and "user Twin" in said and "device ann@example.org / caravel-device" in said
    for line in cox("users", "list").stdout.splitlines()[2:]:
        cox("users", "remove", line.split()[0], "--yes")
    asked = remedy.strip().removeprefix("Rename one of them: cox ").removesuffix(" NAME").split()
    cox(*asked, "phone")
    exported = cox("export").stdout
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=exported).stdout)["changes"] == []
    controller.client.post("/api/users/ann@example.org/devices", {"name": "phone"})
    cox("apply", "-f", "-", "--yes", "--prune", text=person.format("laptop"))
    assert cox("export").stdout.count("- name: ") == 2, "Ann and her laptop"


def test_two_who_apply_a_file_at_once_make_nothing_twice(cox: Cox, controller: Controller) -> None:
    """Each had looked before the other did anything."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    cox("users", "add", "Ann", "--email", "ann@example.org")
    ann = "- name: Ann\n  email: ann@example.org\n  devices: [{name: phone}]\n"
    for text in (f"fleet: 1\nusers:\n{ann}", "fleet: 1\nusers:\n- name: Bob\n"):
        wanted, spoken = read(text.encode())
        present = read_present(partial(every, controller.client)).items
        changes = [c for c in compare(wanted, spoken, present, prune=False) if c.wanted is not None]
        apply(controller.client, changes, present, lambda _change: None)
        with pytest.raises(Stopped, match="already") as caught:
            apply(controller.client, changes, present, lambda _change: None)
        assert isinstance(caught.value.cause, RemoteError) and caught.value.cause.status == 409
        assert cox("plan", "-f", "-", text=text).stdout.count("+") == 0
    assert cox("export").stdout.count("name: phone") == cox("export").stdout.count("name: Bob") == 1
    phone = controller.client.get("/api/devices")[0]["id"]
    cox("devices", "revoke", phone, "--yes")
    cox("apply", "-f", "-", "--yes", text=f"fleet: 1\nusers:\n{ann}")
    controller.client.post("/api/users/ann@example.org/devices", {"name": "phone"})
    assert len(controller.client.get("/api/devices")) == 3, "who does not ask for it may have two of one name"


def test_who_goes_goes_whole(cox: Cox, controller: Controller) -> None:
    """Not profile by profile, when a device without any is given every node."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    node = "nodes:\n- {name: w-1, control_addr: w-1, public_ip: 192.0.2.1}\n"
    profiles = "[{name: x, node: w-1}, {name: y, node: w-1}]"
    user = f"users:\n- name: Cy\n  devices: [{{name: phone, profiles: {profiles}}}]\n"
    cox("apply", "-f", "-", "--yes", text=f"fleet: 1\n{node}{user}")
    out = cox("apply", "-f", "-", "--prune", "--yes", text=f"fleet: 1\n{node}users: []\n").stdout
    assert "0 to add, 0 to change, 1 to remove" in out
    assert controller.client.get("/api/profiles") == controller.client.get("/api/devices") == []


def test_a_profile_that_moves_has_the_entry_addresses_that_the_file_says(cox: Cox, controller: Controller) -> None:
    """Also where it had the same at the node from which it moves: the controller drops them with that."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    pool = "endpoint_ips: [192.0.2.1, 192.0.2.2]"
    file = f"fleet: 1\nnodes: [{{name: m-1, control_addr: m-1, {pool}}}, {{name: m-2, control_addr: m-2, {pool}}}]\n"
    file += "users:\n- name: Mo\n  devices:\n  - name: phone\n"
    for name, at in (("x", "m-1"), ("x", "m-2"), ("y", "m-1")):  # the last one takes the other's place
        text = f"{file}    profiles: [{{name: {name}, node: {at}, entry_ips: [192.0.2.2]}}]\n"
        cox("apply", "-f", "-", "--prune", "--yes", text=text)
        assert [profile["entry_ips"] for profile in controller.client.get("/api/profiles")] == [["192.0.2.2"]]
        assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=text).stdout)["changes"] == []


def test_what_goes_is_led_to_by_nothing_that_the_file_does_not_speak_of(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    nodes = "fleet: 1\nnodes: [{name: s-1, control_addr: s-1}, {name: s-2, control_addr: s-2, public_ip: 192.0.2.1}]\n"
    users = "users:\n- name: Sue\n  devices: [{name: phone, profiles: [{name: x, node: s-2}]}]\n"
    cox("apply", "-f", "-", "--yes", text=nodes + users)
    left = "fleet: 1\nnodes: [{name: s-1, control_addr: s-1, region: Nederland}]\n"
    for command in (("plan",), ("apply", "--yes")):
        said = cox(*command, "--prune", "-f", "-", text=left, code=5).stderr
        assert "node s-2: is not in the file, and profile Sue / phone / x leads to it" in said
    assert "Nederland" not in cox("nodes", "list").stdout
    cox("apply", "-f", "-", "--yes", text=left)
    cox("apply", "-f", "-", "--yes", "--prune", text=left + "users: []\n")
    assert "s-2" not in cox("nodes", "list").stdout


def test_a_large_fleet_is_written_at_once() -> None:
    """In the time that it takes to write, whatever the number of its users."""
    items = [Item("user", (f"u{n}",), {"name": f"u{n}"}) for n in range(6_000)]
    items += [Item("device", (f"u{n}", "d"), {"name": "d"}) for n in range(6_000)]
    began = time.thread_time()
    written = document(items)
    assert time.thread_time() - began < 3.0  # it was 12 s when each looked through all of them
    assert [user["devices"][0]["name"] for user in written["users"]] == ["d"] * 6_000


def test_a_profile_moves_away_from_a_node_that_goes(cox: Cox) -> None:
    node = "- {{name: {0}, control_addr: {0}, public_ip: 192.0.2.1}}\n"
    user = "users:\n- name: Cy\n  devices: [{{name: phone, profiles: [{{name: x, node: {0}}}]}}]\n"
    cox("apply", "-f", "-", "--prune", "--yes", text="fleet: 1\nnodes:\n" + node.format("m-1") + user.format("m-1"))
    cox("apply", "-f", "-", "--prune", "--yes", text="fleet: 1\nnodes:\n" + node.format("m-2") + user.format("m-2"))
    assert "m-1" not in cox("nodes", "list").stdout


def test_what_somebody_else_changed_meanwhile_is_left_alone(cox: Cox, controller: Controller) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    cox("apply", "-f", "-", "--yes", text="fleet: 1\nusers:\n- name: Dee\n  email: dee@example.org\n")
    wanted, spoken = read(b"fleet: 1\nusers:\n- name: Deirdre\n  email: dee@example.org\n")
    present = read_present(partial(every, controller.client)).items
    changes = compare(wanted, spoken, present, prune=True)
    cox("users", "edit", "dee@example.org", "--phone", "+4930123456")
    with pytest.raises(Stopped, match="was changed by somebody else") as caught:
        apply(controller.client, changes, present, lambda _change: None)
    assert isinstance(caught.value.cause, RemoteError)
    assert caught.value.cause.status == 409
    assert "Dee " in cox("users", "list").stdout
