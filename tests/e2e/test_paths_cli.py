"""``cox paths`` and what it prints, from the plan to the end of the operation; with an exit code that tells."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cascade import CascadeFleet, cascade_fleet
from tests.fleet import ROOT, KillableController

NODES = 3


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CascadeFleet]:
    with cascade_fleet(tmp_path_factory.mktemp("cli"), NODES, 13_360, process=True) as running:
        yield running


def cox(fleet: CascadeFleet, *arguments: str) -> tuple[int, str, str]:
    controller = fleet.fleet.controller
    assert isinstance(controller, KillableController)
    command = controller.daemon.command(*arguments)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_path_from_its_plan_to_its_end(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    code, out, _ = cox(fleet, "paths", "plan", "--hops", "n0,n1,n2")
    assert code == 0
    assert "n0: configure inner link awg1 to n1 at 203.0.113.11:443" in out
    assert "MTU for clients" in out
    code, out, err = cox(fleet, "paths", "add", "far", "--hops", "n0,n1,n2", "--color", "#4fd1c4")
    assert (code, err) == (0, "")
    assert "n1: inner link awg1 to n2 is in place" in out
    assert out.rstrip().endswith("path.add: done")
    code, out, _ = cox(fleet, "operations", "list", "--all", "--target", "far")
    assert code == 0 and re.search(r"op_\w+  path.add +far +done ", out), "by its name"
    operation = re.findall(r"op_\w+", out)[0]
    _, out, _ = cox(fleet, "operations", "show", "--follow", operation)
    steps = json.loads(cox(fleet, "operations", "show", operation, "--json")[1])["steps"]
    told = [line.partition(" (")[0] for line in out.splitlines()]
    for step in steps:  # none of which was seen to begin
        lines = step["output"].splitlines()
        place = told.index(f"✓ {step['title'].partition(' (')[0]}")
        assert out.splitlines()[place + 1 : place + 1 + len(lines)] == [f"    {line}" for line in lines]
    assert any(step["output"] for step in steps)
    code, out, _ = cox(fleet, "paths", "list")
    assert "n0 → n1 → n2" in out
    assert "active" in out
    code, out, _ = cox(fleet, "paths", "plan", "--device", device, "--path", "far")
    assert f"send {fleet.addresses[device]} into awg1" in out
    code, out, err = cox(fleet, "paths", "bind", device, "far")
    assert (code, err) == (0, "")
    assert "move the traffic" in out
    assert fleet.follow(device, 0) == (0, 1, 2)
    code, out, _ = cox(fleet, "paths", "bind", device, "far")
    assert code == 0 and "nothing to do" in out
    code, out, _ = cox(fleet, "paths", "bind", device, "far", "--json")
    assert code == 0 and json.loads(out)["phase"] == "settled"
    code, out, _ = cox(fleet, "paths", "show", "far", "--json")
    found = json.loads(out)
    assert [b["device_id"] for b in found["bindings"]] == [device]
    code, out, _ = cox(fleet, "paths", "show", "far")
    assert device in out
    code, _, err = cox(fleet, "paths", "rm", "far")
    assert code == 5
    assert "cox paths unbind" in err
    assert cox(fleet, "profiles", "create", "by far", "--device", device, "--path", "far")[0] == 0
    profile = next(line for line in cox(fleet, "profiles", "list")[1].splitlines() if "by far" in line)
    assert "path far" in profile
    assert cox(fleet, "profiles", "remove", profile.split()[0], "--yes")[0] == 0
    assert cox(fleet, "paths", "color", "far", "")[0] == 0
    assert cox(fleet, "paths", "provision", "far")[0] == 0
    assert cox(fleet, "nodes", "push-policy", "n0")[0] == 0
    for _ in range(2):
        code, out, _ = cox(fleet, "paths", "unbind", device)
        assert code == 0
    assert "nothing to do" in out
    assert cox(fleet, "paths", "rm", "far")[0] == 0
    assert fleet.follow(device, 0) == (0,)


def test_what_does_not_go_over_a_path_is_said_and_whatever_has_a_name_is_called_by_it(
    fleet: CascadeFleet, tmp_path: Path
) -> None:
    assert cox(fleet, "users", "add", "Ann", "--email", "ann@x.org")[0] == 0
    assert cox(fleet, "devices", "add", "Ann", "tablet")[0] == 0
    assert cox(fleet, "devices", "provision", "tablet")[0] == 0
    device = json.loads(cox(fleet, "devices", "show", "tablet", "--json")[1])["id"]
    assert cox(fleet, "nodes", "edit", "n0", "--no-forwarding", "--no-masquerade")[0] == 0
    code, out, err = cox(fleet, "paths", "add", "p", "--hops", "n0,n1")
    assert code == 0 and "! n0: forwarding is off, and is on while somebody is on the path" in out, err
    assert "bound to path     -" in cox(fleet, "devices", "show", "tablet")[1]
    code, out, err = cox(fleet, "paths", "bind", "tablet", "p")
    assert code == 0 and "it has keys for n2 as well, and what it sends there leaves there" in out, err
    assert "bound to path     p" in cox(fleet, "devices", "show", "tablet")[1]
    assert f"\ntablet {device}  settled" in cox(fleet, "paths", "show", "p")[1]
    code, out, _ = cox(fleet, "nodes", "policy", "n0")
    assert "! forwarding is off in its settings, and on all the same while paths lead on from here" in out
    assert "! 1 address on 1 link:" in out and "ip rule add fwmark 7100 lookup 7100" in out
    for node, said in (("n0", False), ("n2", True)):
        file = str(tmp_path / f"{node}.conf")
        code, out, err = cox(fleet, "profiles", "export", "tablet", "--node", node, "--out", file)
        note = f"bound to the path p, for AmneziaWG to n0: what it sends by this file leaves at {node}"
        assert code == 0 and (note in out) is said, (out, err)
    assert cox(fleet, "paths", "unbind", "tablet")[0] == 0
    assert cox(fleet, "users", "remove", "Ann", "--yes")[0] == cox(fleet, "paths", "rm", "p")[0] == 0
    assert cox(fleet, "nodes", "edit", "n0", "--forwarding", "--masquerade")[0] == 0


def test_a_way_over_a_node_that_is_disabled_is_refused_at_once_and_one_can_be_taken_off_it(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    assert cox(fleet, "paths", "add", "p", "--hops", "n0,n1")[0] == 0
    assert cox(fleet, "paths", "bind", device, "p")[0] == 0
    assert cox(fleet, "nodes", "disable", "n0")[0] == 0
    for more in ((), ("--no-wait",), ("--json",)):
        code, out, err = cox(fleet, "paths", "add", "q", "--hops", "n2,n0", *more)
        assert (code, out) == (5, "") and "node n0: is disabled" in err
        assert "cox nodes enable n0; or cox nodes start" in err
    assert cox(fleet, "paths", "plan", "--hops", "n2,n0")[0] == cox(fleet, "paths", "provision", "p")[0] == 5
    code, out, _ = cox(fleet, "paths", "unbind", device)
    assert code == 0 and "! n0 is disabled, and is told of it when it is enabled again" in out
    assert cox(fleet, "paths", "rm", "p")[0] == cox(fleet, "nodes", "enable", "n0")[0] == 0
    fleet.until_follows(device, 0)


def test_mistakes_are_told_with_the_way_out(fleet: CascadeFleet) -> None:
    code, _, err = cox(fleet, "paths", "add", "p", "--hops", "n0")
    assert code == 2
    assert "node_ids" in err
    code, _, err = cox(fleet, "paths", "add", "p", "--hops", "n0,n1,n0")
    assert code == 2
    assert "'n0' comes twice" in err
    code, _, err = cox(fleet, "paths", "plan", "--hops", "n0,n1", "--fallback", "n1")
    assert "'n1' is a node of the path already" in err
    code, _, err = cox(fleet, "paths", "add", "p", "--hops", "n0,nobody")
    assert code == 2
    code, _, err = cox(fleet, "paths", "add", "p", "--hops", "n0,n1", "--color", "reddish")
    assert code == 2, "refused before an operation begins"
    assert "'reddish' is not a colour" in err
    code, _, err = cox(fleet, "paths", "plan")
    assert code == 2
    assert "--hops" in err
    code, _, err = cox(fleet, "paths", "bind", "dev_nobody", "p")
    assert code == 4
    fleet.fleet.nodes.do("kill", node=2)
    fleet.fleet.controller.until("n2", link_state="backing_off")
    code, _, err = cox(fleet, "paths", "add", "p", "--hops", "n2,n1", "--patience", "2")
    assert code == 8
    assert "n2 is not connected" in err
    assert json.loads(cox(fleet, "paths", "list", "--json")[1]) == []
    assert isinstance(fleet.fleet.controller, KillableController)
    command = fleet.fleet.controller.daemon.command("paths", "add", "p", "--hops", "n2,n1", "--patience", "60")
    heeding = ["env", "--default-signal=INT", *command]  # who runs the tests in the background ignores it, and so would this
    with subprocess.Popen(heeding, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None and following.stderr is not None
        assert any(line.startswith("▸") for line in following.stdout), following.stderr.read()
        following.send_signal(signal.SIGINT)
        err = following.stderr.read()
    assert "cox: path.add goes on without you" in err, "who stops looking does not stop it"
    (operation,) = re.findall(r"--follow (op_\w+); or stop it: cox operations cancel", err)
    assert json.loads(cox(fleet, "operations", "show", operation, "--json")[1])["state"] == "running"
    assert cox(fleet, "operations", "cancel", operation)[0] == 0
    fleet.fleet.nodes.do("start", node=2)  # for whichever test comes next
    fleet.fleet.controller.until("n2", link_state="live")
