"""Files against a real controller: what is applied is what is exported, and applying it again changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.main import cli
from coxswain.cli.accounts import every
from coxswain.cli.client import RemoteError
from coxswain.declare.apply import Stopped, apply
from coxswain.declare.compare import compare
from coxswain.declare.items import Item
from coxswain.declare.present import read_present
from coxswain.declare.schema import read
from coxswain.declare.write import document
from coxswain.errors import InvalidInput
from coxswain.store import open_store
from tests.fleet import Controller
from tests.support import free_port

Cox = Callable[..., Result]
EMPTY = "fleet: 1\nnodes: []\nusers: []\n"


@pytest.fixture
def cox(controller: Controller) -> Cox:
    (controller.home.parent / "cox.yaml").write_text("posture: personal\nstate_dir: state\n")

    def run(*arguments: str, text: str = "", code: int = 0) -> Result:
        config = str(controller.home.parent / "cox.yaml")
        result = CliRunner().invoke(cli, [*arguments, "--config", config], input=text, prog_name="cox")
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        return result

    return run


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


def test_a_machine_that_is_not_reached_keeps_nobody_waiting_who_does_not_need_it(cox: Cox, controller: Controller) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    host = f"servers:\n- {{name: nowhere, ssh_host: 127.0.0.1, ssh_port: {free_port()}, host_key: 'SHA256:{'A' * 43}'}}\n"
    profiles = "[{name: x, node: b-1}, {name: y, node: b-2}, {name: z, path: over}]"
    text = (
        (
            f"fleet: 1\nnodes:\n- {{name: b-1, control_addr: b-1}}\n- {{name: b-2, server: nowhere}}\n{host}"
            "paths: [{name: over, hops: [b-1, b-2], fallbacks: []}]\n"
            f"users:\n- name: Cem\n  devices: [{{name: phone, profiles: {profiles}}}]\n"
        )
        .replace("control_addr: b-1", "control_addr: b-1, endpoint_ips: [192.0.2.1]")
        .replace("server: nowhere}", "server: nowhere, endpoint_ips: [192.0.2.2]}")
    )
    cox("users", "add", "Bea")
    done = cox("apply", "-f", "-", "--prune", "--yes", text=text, code=7)
    out = done.stdout
    assert "> server nowhere: failed: 127.0.0.1 port " in out and "5 applied" in out
    made = out.partition("to remove\n")[2]
    for line in ("- user Bea", "+ node b-1", "+ user Cem", "+ device Cem / phone", "+ profile Cem / phone / x"):
        assert f"{line}\n" in made
    assert "not yet: add server nowhere: 127.0.0.1 port " in out and "(operation op_" in out
    assert "not yet: add node b-2: waits for server nowhere\n" in out
    assert "not yet: add path over: waits for node b-2\n" in out
    assert "not yet: add profile Cem / phone / y: waits for node b-2\n" in out
    assert "not yet: add profile Cem / phone / z: waits for path over\n" in out
    assert "5 changes wait for what is not ready yet" in done.stderr and "apply the file again" in done.stderr
    assert [p["name"] for p in controller.client.get("/api/profiles")] == ["x"]

    answer = json.loads(cox("apply", "-f", "-", "--prune", "--yes", "--json", text=text, code=7).stdout)
    assert answer["applied"] == 0 and [w["kind"] for w in answer["waiting"]] == ["server", "node", "path", *["profile"] * 2]
    assert "(operation op_" in answer["waiting"][0]["for"] and answer["waiting"][0]["failed"] is True
    assert f"    {answer['waiting'][0]['remedy']}\nnot yet: add node b-2" in out, "what to do about it"
    assert answer["waiting"][1] == {"kind": "node", "key": ["b-2"], "for": "server nowhere"}
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY + "paths: []\n")


def test_a_new_machine_is_logged_in_to_as_configured(cox: Cox, controller: Controller) -> None:
    """Where the file does not say otherwise; the plan says how, and two of one address are told by their ports."""
    config = controller.home.parent / "cox.yaml"
    config.write_text("posture: personal\nstate_dir: state\nnode: {ssh_user: deploy, ssh_port: 2222}\n")
    cox("config", "reload")
    machine = f"{{{{name: {{}}, ssh_host: 127.0.0.1, host_key: 'SHA256:{'A' * 43}'{{}}}}}}"
    file = f"fleet: 1\nservers:\n- {machine}\n- {machine}\n"
    seen = json.loads(cox("plan", "-f", "-", "--json", text=file.format("a", "", "b", ", ssh_port: 22")).stdout)["changes"]
    assert [[c["fields"][f]["after"] for f in ("ssh_user", "ssh_port")] for c in seen] == [["deploy", 2222], ["deploy", 22]]
    said = cox("plan", "-f", "-", text=file.format("a", "", "b", ", ssh_port: 2222"), code=2).stderr
    assert "stdin:4: server b: ssh_host: 127.0.0.1 port 2222 is server a's already" in said
    config.write_text(f"posture: personal\nstate_dir: state\nnode: {{ssh_user: deploy, ssh_port: {free_port()}}}\n")
    cox("config", "reload")
    cox("apply", "-f", "-", "--yes", text=file.format("a", "", "b", ", ssh_user: root"), code=2)
    cox("apply", "-f", "-", "--yes", text="\n".join(file.format("a", "", "", "").splitlines()[:3]), code=7)
    (operation,) = controller.client.get("/api/operations?kind=server.add&limit=1")
    values = controller.client.get("/api/config")["values"]
    assert [operation["params"][f] for f in ("ssh_user", "ssh_port")] == ["deploy", values["node.ssh_port"]["value"]]
    config.write_text("posture: personal\nstate_dir: state\n")
    cox("config", "reload")


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


def test_all_is_done_that_need_not_wait_for_nodes_to_be_enrolled(cox: Cox, controller: Controller) -> None:
    """And of the rest it is said what waits for what; with --prune nothing goes to which something leads that waits."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY + "paths: []\n")
    node = "- {{name: {0}, control_addr: {0}, public_ip: 192.0.2.1}}\n"
    file = "fleet: 1\nnodes:\n{}{}users:\n- name: Wim\n  devices:\n  - name: phone\n    profiles:\n    - {{name: x, {}}}\n{}"
    old, new = node.format("w-1"), node.format("w-2") + node.format("w-3")
    cox("apply", "-f", "-", "--yes", text=file.format(old, "", "node: w-1", ""))
    path = "paths: [{name: over, hops: [w-2, w-3]}]\n"
    text = file.format(new, path, "path: over", "    - {name: y, node: w-3}\n- name: Zoe\n")

    said = cox("plan", "-f", "-", "--prune", text=text).stdout
    nodes = "node w-2, which is not enrolled (cox nodes enroll w-2 --csr FILE), node w-3, which is not enrolled"
    assert f"    waits for {nodes} (" in said and "    waits for path over\n" in said
    done = cox("apply", "-f", "-", "--prune", "--yes", text=text, code=7)
    assert "4 applied" in done.stdout, done.stdout
    assert f"not yet: add path over: waits for {nodes} (" in done.stdout
    assert "not yet: edit profile Wim / phone / x: waits for path over\n" in done.stdout
    waits = "not yet: remove node w-1: waits for profile Wim / phone / x, which leads to it until then\n"
    assert waits in done.stdout
    assert "3 changes wait for what is not ready yet" in done.stderr and "apply the file again" in done.stderr
    found = {p["name"]: p.get("node_id", "") for p in controller.client.get("/api/profiles")}
    assert found == {"x": controller.node("w-1")["id"], "y": controller.node("w-3")["id"]}

    again = cox("apply", "-f", "-", "--prune", "--yes", "--json", text=text, code=7)
    answer = json.loads(again.stdout)
    assert answer["applied"] == 0 and [w["kind"] for w in answer["waiting"]] == ["path", "profile", "node"]
    assert answer["waiting"][1] == {"kind": "profile", "key": ["Wim", "phone", "x"], "for": "path over"}
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY + "paths: []\n")


def test_what_is_nowhere_is_said_before_anything_is_done(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    text = "fleet: 1\nusers:\n- name: Bea\n  devices:\n  - name: phone\n    profiles:\n    - {name: x, node: nowhere}\n"
    for command in (("plan",), ("apply", "--yes")):
        assert (
            "stdin:7: profile Bea / phone / x: node: there is no node 'nowhere'"
            in cox(*command, "-f", "-", text=text, code=2).stderr
        )
    assert "Bea" not in cox("users", "list").stdout


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


def test_an_address_is_one_nodes_in_a_file_as_well(cox: Cox, controller: Controller) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)

    def nodes(**addresses: str) -> str:
        lines = [f"- {{name: {name}, control_addr: {addr}}}" for name, addr in addresses.items()]
        return "\n".join(["fleet: 1", "nodes:", *lines, ""])

    def refused(file: str, *more: str) -> str:
        return cox("plan", "-f", "-", *more, text=file, code=5).stderr

    assert "stdin:3: node a: control_addr: h:8444 is that of node b already" in refused(nodes(a="h", b="H:8444"))
    cox("apply", "-f", "-", "--yes", text=nodes(a="h-1", b="h-2", c="h-3"))
    for file, goes in ((nodes(d="h-1"), "a"), (nodes(a="h-2"), "b"), (nodes(d="H-1", b="h-2", c="h-3"), "a")):
        said = refused(file)
        assert "already" in said and f". With --prune, node {goes} is removed first" in said
    assert "--prune" not in refused(nodes(a="h-1", d="h-1")), "it stays"
    cox("apply", "-f", "-", "--yes", text=nodes(a="h-2", b="h-3", c="h-4", d="h-1"))
    found = {node["name"]: node["control_addr"] for node in controller.client.get("/api/nodes")}
    assert found == {"a": "h-2:8444", "b": "h-3:8444", "c": "h-4:8444", "d": "h-1:8444"}
    assert "nodes exchange their addresses" in refused(nodes(a="h-3", b="h-2"))

    # Who is not in the file goes before, with --prune: for one that is new, and for one that moves there.
    out = cox("apply", "-f", "-", "--prune", "--yes", text=nodes(a="h-3", e="h-2", c="h-4")).stdout
    assert "    makes room for node a\n" in out
    made = out.partition("to remove\n")[2]
    assert made.index("- node b") < made.index("~ node a") < made.index("+ node e") < made.index("- node d")
    found = {node["name"]: node["control_addr"] for node in controller.client.get("/api/nodes")}
    assert found == {"a": "h-3:8444", "c": "h-4:8444", "e": "h-2:8444"}


def test_a_node_in_whose_place_another_one_comes_has_nothing_leading_to_it(cox: Cox, controller: Controller) -> None:
    """What is led to the other one can only be that once it is there; so it is refused before anything is done."""
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    file = "fleet: 1\nnodes:\n- {{name: k, control_addr: h-2}}\n- {{name: {0}, control_addr: h-1}}\nusers:\n- name: Kim\n{1}"
    device = "  devices: [{{name: phone, profiles: [{{name: x, node: {}}}]}}]\n"
    cox("apply", "-f", "-", "--yes", text=file.format("old", device.format("old")))
    old = controller.node("old")["id"]
    for leads in ("new", "k"):
        said = cox("plan", "-f", "-", "--prune", text=file.format("new", device.format(leads)), code=5).stderr
        assert "stdin:4: node new: it takes the place of node old, to which profile Kim / phone / x leads" in said
        assert "cox nodes edit old --name new" in said
    cox("nodes", "edit", "old", "--name", "new")
    text = file.format("new", device.format("new"))
    assert "The fleet is as the file says" in cox("plan", "-f", "-", "--prune", text=text).stdout
    cox("nodes", "edit", "new", "--name", "old")
    cox("apply", "-f", "-", "--prune", "--yes", text=file.format("new", ""))  # what led to it goes with its device
    assert controller.node("new")["id"] != old and controller.client.get("/api/profiles") == []


def test_a_path_over_a_node_that_makes_room_goes_before_it(cox: Cox) -> None:
    there = {name: {"name": name, "control_addr": f"{name}:8444", "server": "", "enrolled": True, "wg_public_key": "k",
                    "enabled": True, "public_ip": "", "endpoint_ips": ["192.0.2.1"]} for name in "ab"}  # fmt: skip
    present = [Item("node", (name,), fields, id=f"nod_{name}", version=1) for name, fields in there.items()]
    for item in present:
        item.fields.update(region="", endpoint_ports="", decoy_site="", forwarding=True, masquerade=True, isolation=False)
    present.append(Item("path", ("over",), {"name": "over", "hops": ["a", "b"], "color": "", "fallbacks": []}, id="pth_1"))
    text = b"fleet: 1\nnodes: [{name: a, control_addr: a}, {name: new, control_addr: b}]\npaths: []\n"
    changes = compare(*read(text), present, prune=True)
    assert [(c.action.value, c.item.title) for c in changes] == [
        ("remove", "path over"), ("remove", "node b"), ("add", "node new")
    ]  # fmt: skip


def test_a_node_that_moves_away_goes_before_one_that_is_onboarded_at_its_address(cox: Cox) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    cox("apply", "-f", "-", "--yes", text="fleet: 1\nnodes: [{name: old, control_addr: 192.0.2.7}]\n")
    machine = f"{{name: m, ssh_host: 192.0.2.7, host_key: 'SHA256:{'A' * 43}'}}"
    nodes = "[{name: new, server: m}, {name: old, control_addr: 192.0.2.8}]"
    planned = cox("plan", "-f", "-", text=f"fleet: 1\nservers: [{machine}]\nnodes: {nodes}\n").stdout
    assert planned.index("node old") < planned.index("node new")


def test_nodes_with_one_address_from_before_stay_and_can_be_changed(cox: Cox, controller: Controller) -> None:
    text = "fleet: 1\nnodes: [{name: a, control_addr: h-1}, {name: b, control_addr: h-2}, {name: c, control_addr: h-3}]\n"
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    cox("apply", "-f", "-", "--yes", text=text)
    controller.stop()
    with closing(open_store(controller.home / "app.db")) as store, store.write() as tx:
        tx.execute("UPDATE nodes SET control_addr = 'h-1:8444' WHERE name = 'b'")
    controller.start()
    exported = cox("export").stdout
    assert exported.count("control_addr: h-1:8444") == 2
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=exported).stdout)["changes"] == []
    node = controller.node("b")
    body = {"version": node["version"], "region": "ams", "control_addr": "h-1"}
    assert controller.client.call("PATCH", "/api/nodes/b", body)["region"] == "ams", (
        "an existing caller sends all of it back"
    )
    cox("nodes", "edit", "c", "--addr", "h-1", code=5)
    cox("apply", "-f", "-", "--yes", text=text.replace("h-1", "h-4").replace("h-3", "h-1"))
    found = {node["name"]: node["control_addr"] for node in controller.client.get("/api/nodes")}
    assert found == {"a": "h-4:8444", "b": "h-2:8444", "c": "h-1:8444"}


def test_an_export_with_addresses_from_before_can_be_applied(cox: Cox, controller: Controller) -> None:
    cox("apply", "-f", "-", "--prune", "--yes", text=EMPTY)
    text = "fleet: 1\nnodes:\n- {name: o-1, region: nl, control_addr: o, public_ip: 192.0.2.9, endpoint_ips: [192.0.2.1]}\n"
    cox("apply", "-f", "-", "--yes", text=text)
    controller.stop()
    with closing(open_store(controller.home / "app.db")) as store, store.write() as tx:
        tx.execute("UPDATE nodes SET public_ip = '0.0.0.0', endpoint_ips = '[\"::\"]' WHERE name = 'o-1'")
    controller.start()
    exported = cox("export").stdout
    assert "::" in exported and "0.0.0.0" in exported
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=exported).stdout)["changes"] == []
    cox("apply", "-f", "-", "--yes", text=exported.replace("region: nl", "region: de"))
    node = controller.node("o-1")
    assert (node["region"], node["endpoint_ips"]) == ("de", ["::"])
    body = {"version": node["version"], "endpoint_ips": ["::", "192.0.2.1"], "name": "o-1"}
    changed = controller.client.call("PATCH", "/api/nodes/o-1", body)
    assert changed["endpoint_ips"] == ["::", "192.0.2.1"], "an existing caller sends all of it back"


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
    began = time.process_time()
    written = document(items)
    assert time.process_time() - began < 3.0  # it was 12 s when each looked through all of them
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
