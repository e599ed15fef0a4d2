"""A whole fleet from a file, onto simulated nodes: policies, pools, a path, users, devices, profiles; and drift."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from actors.main import cli
from coxswain.cli.accounts import every
from coxswain.declare.apply import apply
from coxswain.declare.compare import Action, compare
from coxswain.declare.present import read_present
from coxswain.declare.schema import read
from tests.fleet import LiveFleet, Nodes, live_fleet, lone_controller
from tests.support import eventually, free_ports

BASE_PORT = 13_800
FILE = """\
fleet: 1
nodes:
- {{name: n0, control_addr: "127.0.0.1:13800", endpoint_ips: [198.51.100.1], policy: {{isolation: {isolation}}}}}
- {{name: n1, control_addr: "127.0.0.1:13801", endpoint_ips: [198.51.100.2]}}
- {{name: n2, control_addr: "127.0.0.1:13802", endpoint_ips: [198.51.100.3]}}
paths:
- {{name: over, hops: [n0, n1], color: "#3366cc", fallbacks: [n2]}}
users:
- name: Ann
  email: ann@example.org
  devices:
  - name: phone
    profiles:
    - {{name: away, path: over}}
    - {{name: home, node: n2}}
  - {{name: laptop, all_nodes: true}}
"""


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    home = tmp_path_factory.mktemp("declared")
    with live_fleet(home, 3, BASE_PORT, config="posture: personal\nstate_dir: state\n") as running:
        yield running


@pytest.fixture
def cox(fleet: LiveFleet) -> Callable[..., Result]:
    def run(*arguments: str, text: str = "", code: int = 0) -> Result:
        config = str(fleet.controller.home.parent / "cox.yaml")
        result = CliRunner().invoke(cli, [*arguments, "--config", config], input=text, prog_name="cox")
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        return result

    return run


def get(fleet: LiveFleet, path: str) -> Any:
    return fleet.controller.client.get(path)


class Killed(BaseException):
    """Instead of SIGKILL: ``cox apply`` keeps nothing that a kill could lose but what it did not ask for yet."""


class Dying:
    """A client that is killed at its first change: before it was asked for, or after it was made, before that was known."""

    def __init__(self, client: Any, *, after: bool) -> None:
        self._client = client
        self._after = after

    def call(self, method: str, path: str, body: Any = None) -> Any:
        if method == "GET":  # changes nothing
            return self._client.call(method, path)
        if self._after:
            self._client.call(method, path, body)
        raise Killed(f"{method} {path}")

    def begin(self, path: str, body: Any, method: str = "POST") -> Any:
        return self.call(method, path, body)


CROWD = (
    FILE
    + """\
- name: Bob
  phone: "+49301234567"
  status: suspended
  devices:
  - {{name: tablet, platform: android, status: suspended, all_nodes: true}}
  - name: watch
    profiles: [{{name: x, node: n1, entry_ips: [198.51.100.2], protocol: both}}]
"""
)


def killed_again_and_again(fleet: LiveFleet, text: str) -> int:
    """Applies a file with a client that is killed at every one of its requests; returns how many changes that took."""
    client = fleet.controller.client
    wanted, spoken = read(text.encode())
    for attempt in range(200):
        present = read_present(partial(every, client)).items
        changes = [c for c in compare(wanted, spoken, present, prune=True) if c.action is not Action.KEEP]
        if not changes:
            return attempt // 2
        with pytest.raises(Killed):
            apply(Dying(client, after=bool(attempt % 2)), changes, present, lambda _change: None)
    raise AssertionError(f"still to do: {changes}")


def test_an_apply_that_is_killed_at_every_change_is_finished_by_the_next(
    fleet: LiveFleet, cox: Callable[..., Result]
) -> None:
    """Also between the requests of one change: a user that is there and not yet suspended, a device without its nodes."""
    text = CROWD.format(isolation="true")
    assert killed_again_and_again(fleet, text) >= 12
    eventually(lambda: get(fleet, "/api/paths/over")["status"] == "active", timeout=30)
    fleet.controller.all_in_sync(3)
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=text).stdout) == {"changes": [], "drift": []}
    assert len(get(fleet, "/api/users")) == 2 and len(get(fleet, "/api/devices")) == 4, "nothing was made twice"
    assert killed_again_and_again(fleet, "fleet: 1\nnodes: []\npaths: []\nusers: []\n") >= 6
    assert get(fleet, "/api/nodes") == get(fleet, "/api/paths") == get(fleet, "/api/users") == []


def test_a_profile_in_the_place_of_another_leads_nowhere_else_meanwhile(
    fleet: LiveFleet, cox: Callable[..., Result]
) -> None:
    """A device without profiles is given every node; one that only gets another profile is on no other for a moment."""
    text = FILE.format(isolation="false").replace("- {name: laptop, all_nodes: true}", "- name: laptop")
    text = text.replace("    - {name: away, path: over}\n", "").replace("name: home, node: n2", "name: home, node: n0")
    cox("apply", "-f", "-", "--yes", text=text)
    fleet.controller.all_in_sync(3)
    phone = next(d["id"] for d in get(fleet, "/api/devices") if d["name"] == "phone")
    had = get(fleet, f"/api/devices/{phone}")["credentials"]
    revision = get(fleet, "/api/nodes/n2")["config_revision"]
    for new in ("{name: work, node: n0}", "{name: home, node: n1, protocol: both}, {name: more, node: n0}"):
        changed = text.replace("    - {name: home, node: n0}", f"      [{new}]")
        out = cox("apply", "-f", "-", "--prune", "--yes", text=changed).stdout
        assert "every node" not in out and "~ profile ann@example.org / phone / " in out
        assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=changed).stdout)["changes"] == []
        has = get(fleet, f"/api/devices/{phone}")["credentials"]
        assert had[0] | {"profile_id": ""} in [c | {"profile_id": ""} for c in has], "its tunnel goes on"
    fleet.controller.all_in_sync(3)
    assert get(fleet, "/api/nodes/n2")["config_revision"] == revision, "nobody told a node that has nothing to do with it"


NODES = ("n0", "n1", "n2")
_ROUTES = [list(hops) for count in (2, 3) for hops in itertools.permutations(NODES, count)]


@st.composite
def fleets_with_paths(draw: st.DrawFn) -> str:
    """On three nodes that are there: paths over them, and devices that leave by paths, by nodes or everywhere."""
    routes = draw(st.lists(st.sampled_from(_ROUTES), min_size=1, max_size=3, unique_by=tuple))
    paths = [
        {"name": "-".join(hops), "hops": hops, "color": draw(st.sampled_from(["#3366cc", "#cc3366"]))}
        | ({"fallbacks": [name for name in NODES if name not in hops]} if draw(st.booleans()) else {})
        for hops in routes
    ]
    exits = [{"path": path["name"]} for path in paths] + [{"node": name} for name in NODES]
    devices = []
    for number in range(draw(st.integers(1, 3))):
        chosen = draw(st.lists(st.sampled_from(exits), max_size=3))
        profiles = [{"name": f"f{i}", "protocol": "amneziawg", **leaves} for i, leaves in enumerate(chosen)]
        device: dict[str, Any] = {"name": f"d{number}", "status": draw(st.sampled_from(["active", "suspended"]))}
        devices.append(device | ({"profiles": profiles} if profiles else {"all_nodes": draw(st.booleans())}))
    user = {"name": "Ann", "status": draw(st.sampled_from(["active", "suspended"])), "devices": devices}
    return yaml.safe_dump({"fleet": 1, "paths": paths, "users": [user]})


def test_random_fleets_with_paths_are_exported_as_they_are(fleet: LiveFleet, cox: Callable[..., Result]) -> None:
    """One after the other, each onto the one before."""
    nodes = FILE.format(isolation="false").partition("paths:")[0]
    cox("apply", "-f", "-", "--yes", text=nodes)
    fleet.controller.all_in_sync(3)

    @settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
    @given(text=fleets_with_paths())
    def round_trip(text: str) -> None:
        cox("apply", "-f", "-", "--prune", "--yes", text=text)
        fleet.controller.all_in_sync(3)
        assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=text).stdout) == {"changes": [], "drift": []}
        exported = cox("export").stdout
        assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=exported).stdout)["changes"] == []
        assert sorted(path["name"] for path in yaml.safe_load(exported)["paths"]) == sorted(
            path["name"] for path in yaml.safe_load(text)["paths"]
        )

    round_trip()


def test_a_file_makes_a_fleet_and_cuts_nobody_off(
    fleet: LiveFleet, cox: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FILE.format(isolation="false")
    cox("apply", "-f", "-", "--yes", text=text)
    eventually(lambda: get(fleet, "/api/paths/over")["status"] == "active", timeout=30)
    fleet.controller.all_in_sync(3)
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=text).stdout) == {"changes": [], "drift": []}

    phone = next(d for d in get(fleet, "/api/devices") if d["name"] == "phone")
    assert get(fleet, f"/api/devices/{phone['id']}")["peer_count"] == 2
    exported = fleet.controller.client.post(f"/api/devices/{phone['id']}/export", {"format": "pharos"})
    away = json.loads(exported["text"])["payload"]["profiles"][0]
    assert [(hop["name"], hop["role"]) for hop in away["path"]["hops"]] == [("n0", "entry"), ("n1", "exit")]
    path = get(fleet, "/api/paths/over")
    assert 1280 <= away["mtu"] <= path["mtu"]
    (entry,) = away["nodes"]
    assert entry["name"] == "n0"
    address = entry["protocols"][0]["params"]["address"]
    network = fleet.nodes.do("network", node=0)["network"][0]
    assert [transit["device_cidr"] for transit in network["policy"]["transits"]] == [address]

    # Somebody is connected; the file changes in other places, and they do not notice.
    laptop = next(d for d in get(fleet, "/api/devices") if d["name"] == "laptop")
    key = get(fleet, f"/api/devices/{laptop['id']}")["credentials"][0]["wg_public_key"]
    fleet.nodes.do("inject", node=0, connect=[key])
    changed = FILE.format(isolation="true").replace("name: home, node: n2", "name: home, node: n1")
    out = cox("apply", "-f", "-", "--yes", text=changed).stdout
    assert "isolation: off → on" in out
    assert "node: n2 → n1" in out
    fleet.controller.all_in_sync(3)
    assert next(p for p in fleet.nodes.do("peers", node=0)["peers"] if p["public_key"] == key)["connected"]
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=changed).stdout)["changes"] == []

    # Whoever is bound to a path is in no file, and that is said.
    assert not cox("export").stderr
    cox("paths", "bind", laptop["id"], "over", "--yes")
    assert cox("export").stderr == "not in the file: path over: 1 device bound to it (cox paths bind)\n"
    said = cox("plan", "-f", "-", "--prune", text="fleet: 1\npaths: []\n", code=5).stderr
    assert "path over: is not in the file, and 1 device bound to it" in said
    # Also where the file speaks of users, if the device stays; or else it goes first.
    ann = "fleet: 1\npaths: []\nusers:\n- name: Ann\n  email: ann@example.org\n  devices: [{name: laptop}]\n"
    for command in (("plan",), ("apply", "--yes")):
        said = cox(*command, "-f", "-", "--prune", text=ann, code=5).stderr
        assert "path over: is not in the file, and device ann@example.org / laptop is bound to it" in said
        assert f"cox paths unbind {laptop['id']}" in said
    less = FILE.format(isolation="false").replace(", fallbacks: [n2]", "").replace("home, node: n2", "home, node: n1")
    less = "".join(line for line in less.splitlines(keepends=True) if "name: n2" not in line)
    said = cox("plan", "-f", "-", "--prune", text=less, code=5).stderr
    assert "stdin:6: path over: fallbacks: keeps n2, which is not in the file" in said
    cox("plan", "-f", "-", "--prune", text=less.replace('"#3366cc"', '"#3366cc", fallbacks: []'))
    assert len(get(fleet, "/api/devices")) == 2, "nothing was done"
    monkeypatch.setattr("coxswain.cli.accounts._PAGE", 1)  # as of a fleet of thousands
    cox("plan", "-f", "-", "--prune", text=ann, code=5)
    monkeypatch.undo()
    cox("plan", "-f", "-", "--prune", text="fleet: 1\npaths: []\nusers: []\n")
    cox("paths", "unbind", laptop["id"], "--yes")
    said = cox("plan", "-f", "-", "--prune", text="fleet: 1\npaths: []\n", code=5).stderr
    assert "path over: is not in the file, and profile ann@example.org / phone / away leads to it" in said

    # The same again from what is exported; and a node that is away is drift, not a change.
    exported_fleet = cox("export").stdout
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=exported_fleet).stdout)["changes"] == []
    fleet.nodes.do("kill", node=2)
    fleet.controller.until("n2", link_state="backing_off")
    assert "! node n2: " in cox("plan", "-f", "-", text=changed).stdout
    fleet.nodes.do("start", node=2)

    # Nothing of it is left, in one go: people first, with whom their bindings go, then the path, then the nodes.
    cox("paths", "bind", laptop["id"], "over", "--yes")
    lists = [get(fleet, f"/api/{kind}") for kind in ("nodes", "users", "devices")]
    there = {each["id"]: each["name"] for found in lists for each in found}
    cox("apply", "-f", "-", "--yes", "--prune", text="fleet: 1\nnodes: []\npaths: []\nusers: []\n")
    assert there.items() <= {each["id"]: each["name"] for each in get(fleet, "/api/removed?limit=1000")}.items()
    assert get(fleet, "/api/nodes") == get(fleet, "/api/paths") == get(fleet, "/api/users") == []


def test_a_controller_that_has_nothing_needs_the_nodes_enrolled_in_between(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The first apply does all that it can; a second one does the rest, once the nodes are there."""
    home = tmp_path_factory.mktemp("empty")
    base = free_ports(BASE_PORT + 100, 3)
    text = FILE.format(isolation="false")
    for index in range(3):
        text = text.replace(str(BASE_PORT + index), str(base + index))

    def cox(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, [*arguments, "--config", str(home / "cox.yaml")], input=text, prog_name="cox")
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        return result

    with lone_controller(home, config="posture: personal\nstate_dir: state\n") as controller:
        nodes = Nodes.make(home / "nodes", 3)
        try:
            first = cox("apply", "-f", "-", "--yes", code=7)
            assert "not yet: add path over: waits for node n0, which is not enrolled" in first.stdout
            assert [p["name"] for p in controller.client.get("/api/profiles")] == ["home"]
            assert len(controller.client.get("/api/devices")) == 2
            for index in range(3):
                nodes.install(index, controller.client.post(f"/api/nodes/n{index}/enroll", {"csr": nodes.csr(index)}))
            unreached = cox("apply", "-f", "-", "--yes", code=7)
            assert "node n0, which was not reached yet" in unreached.stdout
            nodes.start(base)
            controller.all_in_sync(3)
            assert "2 applied" in cox("apply", "-f", "-", "--yes").stdout
            assert controller.client.get("/api/paths/over")["status"] == "active"
            assert json.loads(cox("plan", "-f", "-", "--prune", "--json").stdout)["changes"] == []
        finally:
            nodes.stop()


def test_a_path_whose_nodes_are_away_is_left_for_the_next_time(fleet: LiveFleet, cox: Callable[..., Result]) -> None:
    text = FILE.format(isolation="false")
    cox("apply", "-f", "-", "--yes", text=text.partition("paths:")[0])
    fleet.nodes.do("kill", node=0)
    fleet.controller.until("n0", link_state="backing_off")
    done = cox("apply", "-f", "-", "--yes", text=text, code=7)
    assert "not yet: add path over: waits for node n0, which is not reached: " in done.stdout
    assert [p["name"] for p in get(fleet, "/api/profiles")] == ["home"] and get(fleet, "/api/paths") == []
    fleet.nodes.do("start", node=0)
    fleet.controller.all_in_sync(3)
    assert "2 applied" in cox("apply", "-f", "-", "--yes", text=text).stdout
