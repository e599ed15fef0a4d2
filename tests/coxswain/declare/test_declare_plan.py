"""What a plan says of a file, and what is refused before anything is done, by a real controller."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from coxswain.declare.compare import compare
from coxswain.declare.items import Item
from coxswain.declare.schema import read
from coxswain.errors import InvalidInput
from tests.fleet import Controller

Cox = Callable[..., Result]
EMPTY = "fleet: 1\nnodes: []\nusers: []\n"


def test_a_plan_shows_what_changes_and_changes_nothing(cox: Cox, controller: Controller) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    head = controller.client.get("/api/audit/head")["size"]
    out = cox(
        "plan", "-f", "-", text="fleet: 1\nnodes:\n- {name: p-1, control_addr: 192.0.2.1}\nusers:\n- name: Ann\n"
    ).stdout
    assert "+ node p-1" in out and "control_addr: 192.0.2.1:8444" in out and "2 to add, 0 to change" in out
    assert controller.client.get("/api/audit/head")["size"] == head

    cox("apply", "-f", "-", "--yes", text="fleet: 1\nnodes:\n- {name: p-1, control_addr: 192.0.2.1}\nusers:\n- name: Ann\n")
    out = cox(
        "plan", "-f", "-", text="fleet: 1\nnodes:\n- {name: p-1, control_addr: 192.0.2.1, policy: {isolation: on}}\n"
    ).stdout
    assert "~ node p-1" in out and "isolation: off → on" in out
    assert "! node p-1: revision 0 of 1" in out  # drift: it is not enrolled yet
    out = cox("plan", "-f", "-", text="fleet: 1\nusers: []\n").stdout
    assert "· user Ann" in out and "1 not in the file (kept; --prune removes them)" in out
    assert cox("plan", "-f", "-", text="fleet: 1\n").stdout.endswith("The fleet is as the file says.\n")


def test_a_plan_shows_what_is_not_as_by_default(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    file = "fleet: 1\nnodes: [{{name: o-1, control_addr: h{}}}]\n"
    assert " off\n" not in cox("plan", "-f", "-", text=file.format("")).stdout
    shown = cox("plan", "-f", "-", text=file.format(", enabled: false, policy: {masquerade: false}")).stdout
    assert "    enabled: off\n" in shown and "    masquerade: off\n" in shown and "isolation" not in shown


def test_a_machine_that_is_not_known_needs_its_host_key(cox: Cox) -> None:
    """Otherwise it is refused once the apply comes to it."""
    said = cox("plan", "-f", "-", text="fleet: 1\nservers:\n- {name: s, ssh_host: 192.0.2.1}\n", code=2).stderr
    assert "stdin:3: server s: host_key: is needed of a machine that is not known yet" in said and "ssh-keygen -lf" in said


def test_a_policy_is_judged_as_it_will_be(cox: Cox) -> None:
    """What the file does not say of it stays as it is, or is what it is of a new node."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    file = "fleet: 1\nnodes: [{{name: o-1, control_addr: h, policy: {{{}}}}}]\n"
    said = cox("plan", "-f", "-", text=file.format("forwarding: off"), code=2).stderr
    assert "stdin:2: node o-1: policy.masquerade: needs forwarding" in said
    cox("apply", "-f", "-", "--yes", text=file.format("forwarding: off, masquerade: off"))
    assert "The fleet is as the file says" in cox("plan", "-f", "-", text=file.format("forwarding: off")).stdout
    for way in ("masquerade", "isolation"):
        said = cox("plan", "-f", "-", text=file.format(f"{way}: on"), code=2).stderr
        assert f"policy.{way}: needs forwarding" in said
    cox("apply", "-f", "-", "--yes", text=file.format("forwarding: on, isolation: on"))


def test_a_path_over_a_node_without_an_address_is_refused_before_anything_is_done(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    key = f"host_key: 'SHA256:{'A' * 43}'"
    servers = f"servers: [{{name: h1, ssh_host: ny.example.org, {key}}}, {{name: h2, ssh_host: 192.0.2.7, {key}}}]\n"
    by_hand = "{name: a, control_addr: h-1}, {name: b, control_addr: h-2}"
    nodes = f"nodes: [{by_hand}, {{name: c, server: h1}}, {{name: d, server: h2}}]\n"
    for hops, more, without in (
        ("a, b", "", "b"), ("a, c", "", "c"), ("a, d", "", ""), ("b, d", ", fallbacks: [a]", "a"), ("d, b", "", "b")
    ):  # fmt: skip
        text = f"fleet: 1\n{servers}{nodes}paths:\n- {{name: over, hops: [{hops}]{more}}}\n"
        out = cox("plan", "-f", "-", text=text, code=2 if without else 0)
        assert not without or f"stdin:5: path over: node {without} has no address at which another node" in out.stderr
        assert "endpoint_ips" in out.stderr or not without


def test_what_is_not_served_is_said_of_the_profile_that_it_is_of(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    nodes = "nodes: [{name: k-1, control_addr: h-1}, {name: k-2, control_addr: h-2}]\n"
    profiles = "[{name: x, node: k-1}, {name: y, node: k-2}]"
    text = f"fleet: 1\n{nodes}users: [{{name: K, devices: [{{name: d, profiles: {profiles}}}]}}]\n"
    out = cox("apply", "-f", "-", "--yes", text=text).stdout
    assert out.count("/ x: not served yet: node k-1") == out.count("/ y: not served yet: node k-2") == 1
    assert out.count("not served yet") == 2


def test_a_plan_says_that_a_user_with_another_address_may_be_one_who_is_there(cox: Cox) -> None:
    """It is another user, whose devices are others; so nobody finds that out afterwards."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    file = "fleet: 1\nusers: [{{name: Ida{}, devices: [{{name: phone}}]}}]\n"
    cox("apply", "-f", "-", "--yes", text=file.format(""))
    with_address = file.format(", email: ida@example.org")
    for more in ((), ("--prune",)):
        said = cox("plan", "-f", "-", *more, text=with_address).stdout
        assert "there is user Ida, of the same name; if this is the same one, first: cox users edit usr_" in said
    way = said.split("first: cox ")[1].splitlines()[0].split()
    cox(*way)
    assert "The fleet is as the file says" in cox("plan", "-f", "-", "--prune", text=with_address).stdout
    said = cox("plan", "-f", "-", "--prune", text=file.format("")).stdout
    assert "there is user ida@example.org, of the same name" in said and "--email ''" in said
    cox(*said.split("first: cox ")[1].splitlines()[0].replace("''", "").split(" "))
    assert "The fleet is as the file says" in cox("plan", "-f", "-", "--prune", text=file.format("")).stdout


def test_another_host_key_than_is_known_is_a_difference_that_no_file_makes_good(cox: Cox) -> None:
    known, other = (f"SHA256:{letter * 43}" for letter in "AB")
    fields = {"name": "h", "ssh_host": "192.0.2.1", "ssh_user": "root", "ssh_port": 2222, "region": "", "host_key": known}
    text = f"fleet: 1\nservers: [{{name: h, ssh_host: 192.0.2.1, region: nl, host_key: '{other}'}}]\n".encode()
    for shown, way in (
        ("", "cox servers add 192.0.2.1 --key --port 2222"),
        (other, f"cox servers trust h --host-key {other}"),
    ):
        present = [Item("server", ("h",), {**fields, "offered_host_key": shown}, id="srv_1", version=1)]
        region, key = compare(*read(text), present, prune=False)
        assert region.fields == {"region": ("", "nl")}
        assert key.fields == {"host_key": (known, other)} and way in key.note
        assert "no file changes the key that is known" in key.note


def test_a_plan_says_who_loses_every_other_node(cox: Cox) -> None:
    """As ``cox profiles create`` does of a device's first profile."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    file = (
        "fleet: 1\nnodes: [{{name: l-1, control_addr: l-1}}, {{name: l-2, control_addr: l-2}}]\n"
        "users:\n- name: Lea\n  devices: [{{name: phone{}}}]\n"
    )
    note = "its device's first profile: it has every node until then"
    two = ", profiles: [{name: x, node: l-1}, {name: y, node: l-1}]"
    assert note not in cox("plan", "-f", "-", text=file.format(two)).stdout, "a new device has had nothing"
    cox("apply", "-f", "-", "--yes", text=file.format(", all_nodes: true"))
    assert cox("plan", "-f", "-", text=file.format(two)).stdout.count(note) == 1
    cox("apply", "-f", "-", "--yes", text=file.format(two.partition(", {name: y")[0] + "]"))
    assert note not in cox("plan", "-f", "-", text=file.format(two)).stdout


def test_what_is_nowhere_is_said_before_anything_is_done(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    text = "fleet: 1\nusers:\n- name: Bea\n  devices:\n  - name: phone\n    profiles:\n    - {name: x, node: nowhere}\n"
    for command in (("plan",), ("apply", "--yes")):
        assert (
            "stdin:7: profile Bea / phone / x: node: there is no node 'nowhere'"
            in cox(*command, "-f", "-", text=text, code=2).stderr
        )
    assert "Bea" not in cox("users", "list").stdout


def test_what_cannot_change_is_said_before_anything_is_done(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    cox("apply", "-f", "-", "--yes", text="fleet: 1\nnodes:\n- {name: f-1, control_addr: f-1, public_ip: 192.0.2.1}\n")
    text = "fleet: 1\nnodes:\n- {name: f-1, control_addr: f-1, public_ip: 192.0.2.2}\n- {name: f-2, control_addr: f-2}\n"
    said = cox("apply", "-f", "-", "--yes", text=text, code=5).stderr
    assert "public_ip is '192.0.2.1' and cannot become" in said and "Say endpoint_ips, which count instead of it" in said
    assert "f-2" not in cox("nodes", "list").stdout


@pytest.mark.parametrize("said", ["public_ip: 0.0.0.0", "endpoint_ips: [192.0.2.1, 224.0.0.1]"])
def test_an_address_that_no_client_can_dial_is_refused_before_anything_is_done(cox: Cox, said: str) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    text = f"fleet: 1\nnodes:\n- {{name: d-1, control_addr: d-1}}\n- {{name: d-2, control_addr: d-2, {said}}}\n"
    for command in (("plan",), ("apply", "--yes")):
        problem, remedy = cox(*command, "-f", "-", text=text, code=2).stderr.splitlines()
        assert problem.startswith(f"cox: stdin:4: node d-2: {said.partition(':')[0]}: ") and "no client can dial" in problem
        assert "the address at which clients reach" in remedy
    assert "d-1" not in cox("nodes", "list").stdout


def test_a_plan_says_who_is_given_every_node(cox: Cox, controller: Controller) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    file = (
        "fleet: 1\nnodes: [{{name: g-1, control_addr: g-1, public_ip: 192.0.2.1}}]\n"
        "users:\n- name: Gil\n  devices: [{{name: phone{}}}]\n"
    )
    cox("apply", "-f", "-", "--yes", text=file.format(", profiles: [{name: x, node: g-1}, {name: y, node: g-1}]"))
    note = "its device has no profile then, and is given every node"
    assert note not in cox("plan", "-f", "-", "--prune", text=file.format(", profiles: [{name: y, node: g-1}]")).stdout
    for left in ("", ", all_nodes: false", ", profiles: []"):
        assert cox("plan", "-f", "-", "--prune", text=file.format(left)).stdout.count(note) == 1
        assert note not in cox("plan", "-f", "-", text=file.format(left)).stdout
    seen = json.loads(cox("plan", "-f", "-", "--prune", "--json", text=file.format("")).stdout)["changes"]
    assert sorted(change.get("note", "") for change in seen) == ["", note]
    assert note not in cox("plan", "-f", "-", "--prune", text=file.format(", all_nodes: true")).stdout, "as it says itself"

    first, second = (profile["id"] for profile in controller.client.get("/api/profiles"))
    assert "every node" not in cox("profiles", "remove", first, "--yes").output
    assert "is given every node" in cox("profiles", "remove", second, "--yes").stderr


def test_a_phone_number_that_somebody_keeps_is_said_before_anything_is_done(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    user = "- {{name: {0}, email: {0}@example.org{1}}}\n"
    two = user.format("p", ", phone: '+4930111222'") + user.format("q", ", phone: '+4930111333'")
    cox("apply", "-f", "-", "--yes", text=f"fleet: 1\nusers:\n{two}")
    taken = user.format("new", "") + user.format("p", ", phone: '+4930111333'")
    swapped = taken + user.format("q", ", phone: '+4930111222'")
    for text in (taken, taken + user.format("q", ""), swapped):
        for command in (("plan",), ("apply", "--yes")):
            problem, remedy = cox(*command, "-f", "-", text=f"fleet: 1\nusers:\n{text}", code=5).stderr.splitlines()
            assert "user p@example.org: phone: " in problem and "cox users edit usr_" in remedy
    assert "new@" not in cox("users", "list").stdout
    cox("apply", "-f", "-", "--yes", "--prune", text=f"fleet: 1\nusers:\n{taken}")  # q goes before

    cox("apply", "-f", "-", "--yes", "--prune", text=f"fleet: 1\nusers:\n{two}")
    said = cox("plan", "-f", "-", text=f"fleet: 1\nusers:\n{swapped}", code=5).stderr
    who = said.split("cox users edit ")[1].split()[0]
    cox("users", "edit", who, "--phone", "")
    cox("apply", "-f", "-", "--yes", text=f"fleet: 1\nusers:\n{swapped}")


def test_a_profile_for_both_protocols_is_not_led_over_a_path(cox: Cox, controller: Controller) -> None:
    """Its protocol stays as it is where the file does not say."""
    wanted, spoken = read(
        b"fleet: 1\nusers:\n- name: Z\n  devices: [{name: p, profiles: [{name: x, path: over}]}]\n", "f.yaml"
    )
    before = {"name": "x", "node": "n", "path": "", "entry_ips": [], "protocol": "both"}
    present = [
        Item("path", ("over",), {"name": "over"}, id="pth_1"),
        *(item for item in wanted if item.kind != "profile"),
        Item("profile", ("Z", "p", "x"), before, id="pspec_1"),
    ]
    present[1].fields.update(email="", phone="", status="active")
    with pytest.raises(InvalidInput, match=r"f.yaml:4: profile Z / p / x: protocol: only amneziawg can follow a path"):
        compare(wanted, spoken, present, prune=False)


def test_an_endpoint_that_the_entry_does_not_have_is_said_before_anything_is_done(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    file = (
        "fleet: 1\nnodes:\n- {{name: e-1, control_addr: e-1, endpoint_ips: [{}]}}\n"
        "- {{name: e-2, control_addr: e-2, public_ip: 192.0.2.9}}\n"
        "users:\n- name: Eli\n  devices:\n  - name: phone\n    profiles:\n    - {{name: x, node: {}, entry_ips: [{}]}}\n"
    )
    for node, entry, has in (("e-1", "192.0.2.9", "192.0.2.1, 192.0.2.2"), ("e-2", "192.0.2.1", "192.0.2.9")):
        text = file.format("192.0.2.1, 192.0.2.2", node, entry)
        for command in (("plan",), ("apply", "--yes")):
            said = cox(*command, "-f", "-", text=text, code=2).stderr
            assert "stdin:10: profile Eli / phone / x: entry_ips: " in said
            assert f": {entry} is not an endpoint of node {node}; it has {has}" in said
    said = cox("plan", "-f", "-", text=file.format("", "e-1", "192.0.2.1"), code=2).stderr
    assert "192.0.2.1 is not an endpoint of node e-1; it has none yet" in said
    assert "e-1" not in cox("nodes", "list").stdout
    cox("apply", "-f", "-", "--yes", text=file.format("192.0.2.1, 192.0.2.2", "e-1", "192.0.2.2"))
    # The node loses the address: the profile may keep what it has, and has to be told of another one that there is.
    gone = file.format("192.0.2.1", "e-1", "192.0.2.2")
    cox("apply", "-f", "-", "--yes", text=gone)
    assert json.loads(cox("plan", "-f", "-", "--json", text=gone).stdout)["changes"] == []
    cox("plan", "-f", "-", text=file.format("192.0.2.1", "e-1", "192.0.2.3"), code=2)
    cox("plan", "-f", "-", text=file.format("192.0.2.1", "e-2", "192.0.2.2"), code=2)
    cox("apply", "-f", "-", "--yes", text=file.format("192.0.2.1", "e-1", "192.0.2.1"))
