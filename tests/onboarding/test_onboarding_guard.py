"""Who reaches the control port, as ``node.control_from`` says: put there, followed, and taken away again."""

from __future__ import annotations

import pytest

from coxswain.errors import InvalidInput, NodeUnreachable
from coxswain.onboarding.guard import check_sources, guard_rules
from coxswain.onboarding.units import GUARD_FILE
from coxswain.ssh import DirectDialer
from tests.onboarding.conftest import Rig


def configure(rig: Rig, *sources: str) -> None:
    text = f"posture: personal\nstate_dir: ./state\nnode: {{control_from: [{', '.join(sources)}]}}\n"
    (rig.home / "cox.yaml").write_text(text)
    rig.client.post("/api/config/reload", {})


def test_it_is_as_configured_from_the_start_follows_and_is_removed(rig: Rig) -> None:
    machine = rig.machine()
    configure(rig, "auto", "203.0.113.0/24")
    node = rig.node_on(machine, rig.agent())
    (guarded,) = [step for step in rig.last("node.add")["steps"] if step["name"] == "guard"]
    assert "reached from 127.0.0.1, 203.0.113.0/24 and from nowhere else" in guarded["output"]
    assert machine.path(GUARD_FILE).read_text() == guard_rules(8444, ["127.0.0.1", "203.0.113.0/24"])
    assert machine.log("nft").splitlines().count(f"-f {GUARD_FILE}") == 1
    assert f"nft -f {GUARD_FILE}" in machine.path("/etc/systemd/system/node.service").read_text(), "after a reboot, too"

    configure(rig, "2001:db8::7", "auto")
    rig.client.post(f"/api/nodes/{node['id']}/guard", {})
    assert machine.path(GUARD_FILE).read_text() == guard_rules(8444, ["2001:db8::7", "127.0.0.1"])
    configure(rig)
    rig.client.post(f"/api/nodes/{node['id']}/guard", {})
    assert not machine.path(GUARD_FILE).exists()
    assert "delete table inet cox_control" in machine.log("nft")

    configure(rig, "auto")
    rig.client.post(f"/api/nodes/{node['id']}/guard", {})
    rig.client.post(f"/api/nodes/{node['id']}/remove", {})
    assert machine.log("nft").splitlines()[-1] == "delete table inet cox_control"
    assert not machine.path(GUARD_FILE).exists()


def test_rules_that_shut_this_controller_out_are_taken_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = rig.machine()
    configure(rig, "auto")
    node = rig.node_on(machine, rig.agent())
    before = machine.path(GUARD_FILE).read_text()
    configure(rig, "203.0.113.9")
    dial = DirectDialer.dial

    def shut_out(self: DirectDialer, host: str, port: int, **how: float) -> object:
        """Hosts of tests share the loopback, which rules let through."""
        if port == 8444:
            raise NodeUnreachable(f"{host} port {port}: no answer within 10 s")
        return dial(self, host, port, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(DirectDialer, "dial", shut_out)
    operation = rig.over(rig.begin(f"/api/nodes/{node['id']}/guard"))
    assert operation["state"] == "undone", operation
    assert "shut this controller out" in operation["error"]
    assert machine.path(GUARD_FILE).read_text() == before
    rig.controller.until(node["name"], link_state="live")


def test_a_host_without_nftables_is_told_of(rig: Rig) -> None:
    machine = rig.machine()
    server = rig.add_server(machine)
    configure(rig, "auto")
    (machine.scratch / "bin/sh").write_text(
        '#!/bin/dash\ncase $2 in *"command -v nft") exit 127 ;; esac\nexec /bin/sh "$@"\n'
    )
    (machine.scratch / "bin/sh").chmod(0o755)
    operation = rig.over(rig.begin(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent()))
    assert operation["state"] == "failed" and "there is no nft" in operation["error"]
    assert "node.control_from" in operation["remedy"]
    configure(rig)


@pytest.mark.parametrize("text", ["", "everywhere", "10.0.0.1/8", "fe80::1%eth0", "10.0.0.0/33", "'; drop"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="control_from"):
        check_sources(["auto", text])


def test_sources_are_told_once_each() -> None:
    assert check_sources(["auto", "10.0.0.1", "auto"]) == ["auto", "10.0.0.1"]
