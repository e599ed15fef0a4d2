"""Every command of ``cox`` is carried out on a running controller; each that may change something leaves its audit record.

Over the network it is carried out with ``--json``, whose output then is JSON, whatever it came to. A command without a row
fails. What acts without a daemon is in ``tests/coxswain/cli/test_cli_recorded.py``.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actors.main import cli
from tests.coxswain.cli.test_cli_recorded import WITHOUT_DAEMON, leaves
from tests.every_action import ME, World, csr, one_time_code, served_database, world
from tests.machines import PASSWORD
from tests.support import eventually

READS = ""


@pytest.fixture(scope="module", params=["control socket", "--url"])
def there(request: pytest.FixtureRequest) -> Iterator[World]:
    """With ``door``: what goes before every command, on the machine itself or on another one; and who the log then names."""
    with tempfile.TemporaryDirectory(prefix="cox-") as directory, world(Path(directory), 21_500) as made:
        if request.param == "--url":
            made.actor = "remote"
            made.door = ("--url", f"http://{made.fleet.controller.listen}", "--token-file", str(made.home / "token"))
            (made.home / "token").touch(mode=0o600)
            token = made.client.post("/api/tokens", {"name": made.actor, "scope": "admin"})
            (made.home / "token").write_text(token["secret"])
        yield made


_COMMANDS = leaves(cli)
_BY_OTHER_NAMES = {"control-path": "control-paths", "cpaths": "control-paths"}


def speaks_json(words: tuple[str, ...]) -> bool:
    """Whether it is one of the commands that have ``--json``."""
    first = _BY_OTHER_NAMES.get(words[0], words[0])
    named = " ".join(("cox", first, *words[1:2])), f"cox {first}"
    command = next(_COMMANDS[name] for name in named if name in _COMMANDS)
    return "--json" not in words and any("--json" in parameter.opts for parameter in command.params)


def check_json(text: str, *, has_failed: bool) -> None:
    """One value; of a list that may be long, one a line. An error is told elsewhere: nothing, or what it came to."""
    if has_failed and not text:
        return
    try:
        json.loads(text)
    except ValueError:
        for line in text.splitlines():
            assert isinstance(json.loads(line), dict), text


def run(w: World, *words: str, typed: str = "", code: int = 0) -> Result:
    more = ("--json",) if w.door and speaks_json(words) else ()
    line = [*w.door, *words, *more, "--config", str(w.home / "cox.yaml")]
    result = CliRunner().invoke(cli, line, input=typed, prog_name="cox")
    assert result.exit_code == code, f"cox {' '.join(words)}: {result.output} {result.exception!r}"
    if more:
        check_json(result.stdout, has_failed=code != 0)
    return result


Act = Callable[[World], object]


def cox(line: str, typed: str = "", code: int = 0) -> Act:
    """``{name}`` in a word: what the story keeps under that name."""
    return lambda w: run(w, *(word.format(**w.ids) for word in line.split()), typed=typed, code=code)


def keeping(name: str, pattern: str, line: str) -> Act:
    """The same, and keeps what ``pattern`` finds in the output."""

    def act(w: World) -> None:
        found = re.search(pattern, run(w, *(word.format(**w.ids) for word in line.split())).output)
        assert found is not None
        w.ids[name] = found[0]

    return act


# -- steps that take more than a line


def _enroll(w: World) -> None:
    (w.home / "extra.csr").write_text(csr())
    run(w, "nodes", "enroll", "extra", "--csr", str(w.home / "extra.csr"), "--out", str(w.home / "extra"))


def _totp(w: World) -> None:
    """The code depends on the secret that the command shows before it asks, so it is asked for in two steps."""
    secret = w.client.post("/api/admins/eve/totp")["secret"]
    w.client.post("/api/admins/eve/totp/confirm", {"code": one_time_code(secret, time.time())})
    run(w, "admins", "totp", "eve", "--remove")


def _bind(w: World) -> None:
    w.ids["roamer"] = w.device_on(0)
    run(w, "paths", "bind", w.ids["roamer"], "road")
    run(w, "paths", "bind", w.ids["roamer"], "road")  # there is nothing to do


def _invite(w: World) -> None:
    relay, picture = "relay.example:443", str(w.home / "join.png")
    done = run(w, "enroll", w.ids["user"], "--relay", relay, "--out", picture, "--device", w.ids["device"])
    w.ids["invite"] = re.findall(r"tkt_\w+", done.output)[0]


def _issue(w: World) -> None:
    out = ("--out", str(w.home / "box.pharosid"))
    run(w, "devices", "issue", w.ids["user"], "--name", "box", "--relay", "relay.example:443", *out)


def _export_sealed(w: World) -> None:
    run(w, "profile", "export", w.ids["user"], "--device", "box", "--out", str(w.home / "box.pharos"))


def _add_server(w: World) -> None:
    machine = w.machine()
    w.ids["host"] = machine.address
    run(w, "servers", "add", machine.address, "--password", "--host-key", machine.fingerprint, typed=f"{PASSWORD}\n")


def _trust(w: World) -> None:
    machine = w.machines[-1]
    machine.new_host_key()
    run(w, "nodes", "add", machine.address, "--binary", w.agent("0.3.1"), code=8)
    run(w, "servers", "trust", machine.address, "--host-key", machine.fingerprint)


def _add_node(w: World) -> None:
    """Both: one that is only taken into the inventory, and one that is installed."""
    run(w, "nodes", "add", "extra", "--addr", "192.0.2.1")
    _add_server(w)
    run(w, "nodes", "add", w.ids["host"], "--name", "grown", "--binary", w.agent("0.3.1"))


def _remove_node(w: World) -> None:
    run(w, "nodes", "remove", "extra", "--yes", "--forget")
    run(w, "nodes", "remove", "grown", "--yes")


def _relays(w: World) -> None:
    run(w, "relays", "add", w.ids["host"], "--name", "ferry", "--egress", "--binary", w.relay())


def _activate(w: World) -> None:
    run(w, "control-paths", "add", "straight")
    run(w, "control-paths", "activate", "straight", "--allow-direct")


def _retry(w: World) -> None:
    w.ids["failed"] = w.failed_operation()
    run(w, "operations", "retry", w.ids["failed"], code=8)


def _cancel(w: World) -> None:
    stuck = w.begin_path()
    try:
        run(w, "operations", "cancel", stuck)
    finally:
        w.let_go()


def _plan(w: World) -> None:
    (w.home / "none.yaml").write_text("fleet: 1\nusers: []\n")
    run(w, "plan", "-f", str(w.home / "none.yaml"))


def _apply(w: World) -> None:
    (w.home / "fleet.yaml").write_text("fleet: 1\nusers:\n- name: Declared\n  email: declared@example.org\n")
    run(w, "apply", "-f", str(w.home / "fleet.yaml"), "--yes")


def _prove(w: World) -> None:
    run(w, "audit", "prove", "1", "--out", str(w.home / "proof.json"))


def _geoip(w: World) -> None:
    with served_database(w.home) as body:
        run(w, "geoip", "update", "--url", body["url"], "--sha256", body["sha256"])


def _session(w: World) -> None:
    run(w, "sessions", "show", "9", code=4)


def _backup(w: World) -> None:
    key, file = str(w.home / "backup.key"), str(w.home / "b.coxbak")
    run(w, "backup", "create", "--key-file", key, "--make-key", "--out", file, "--fast")


def _alert(w: World) -> None:
    """A node is killed, and that is an alert."""
    w.fleet.nodes.do("kill", node=2)
    query = f"/api/alerts?kind=fleet_health&unresolved=true&node={w.fleet.ids[2]}"
    (alert,) = eventually(lambda: w.client.get(query)["alerts"], timeout=30)
    w.keep("alert", alert)
    run(w, "alerts")


def _resolve(w: World) -> None:
    run(w, "alerts", "resolve", w.ids["alert"])
    w.fleet.nodes.do("start", node=2)
    w.fleet.controller.until("n2", link_state="live")


STORY: dict[str, tuple[Act, str]] = {
    "cox status": (cox("status"), READS),
    "cox tree": (cox("tree"), READS),
    "cox nodes add": (_add_node, "node.add"),
    "cox nodes list": (cox("nodes list"), READS),
    "cox nodes show": (cox("nodes show n0"), READS),
    "cox nodes status": (cox("nodes status n0"), READS),
    "cox nodes plan": (cox("nodes plan n0"), READS),
    "cox nodes policy": (cox("nodes policy n0"), READS),
    "cox nodes edit": (cox("nodes edit extra --region fra"), "node.update"),
    "cox nodes endpoints": (cox("nodes endpoints extra 203.0.113.7"), "node.update"),
    "cox nodes disable": (cox("nodes disable extra"), "node.disable"),
    "cox nodes enable": (cox("nodes enable extra"), "node.enable"),
    "cox nodes enroll": (_enroll, "node.enroll"),
    "cox nodes revoke": (cox("nodes revoke extra --reason lost"), "node.revoke"),
    "cox nodes push": (cox("nodes push n0"), "node.push"),
    "cox nodes push-policy": (cox("nodes push-policy n0"), "node.push-policy"),
    "cox nodes update": (lambda w: run(w, "nodes", "update", "grown", "--binary", w.agent("0.3.2")), "node.update-agent"),
    "cox nodes rollback": (cox("nodes rollback grown"), "node.rollback"),
    "cox rollout": (
        lambda w: run(w, "rollout", "grown", "--binary", w.agent("0.3.3")), "rollout"
    ),
    "cox nodes renew": (cox("nodes renew grown"), "node.renew"),
    "cox nodes guard": (cox("nodes guard grown"), "node.guard"),
    "cox nodes stop": (cox("nodes stop grown"), "node.stop"),
    "cox nodes start": (cox("nodes start grown"), "node.start"),
    "cox nodes remove": (_remove_node, "node.remove"),
    "cox servers trust": (_trust, "server.trust"),
    "cox relays add": (_relays, "relay.add"),
    "cox relays list": (cox("relays list"), READS),
    "cox relays set-egress": (cox("relays set-egress ferry --hop 2"), "relay.egress"),
    "cox control-paths add": (cox("control-paths add over --via ferry"), "control_path.add"),
    "cox control-paths list": (cox("cpaths list"), READS),
    "cox control-paths edit": (cox("control-paths edit over --name over"), "control_path.update"),
    "cox control-paths rm": (cox("control-path rm over --yes"), "control_path.rm"),
    "cox control-paths activate": (_activate, "control_path.activate"),
    "cox control-paths deactivate": (cox("control-paths deactivate --allow-direct"), "control_path.deactivate"),
    "cox relays update": (lambda w: run(w, "relays", "update", "ferry", "--binary", w.relay("0.5.0")), "relay.update-agent"),
    "cox relays renew": (cox("relays renew ferry"), "relay.renew"),
    "cox relays remove": (cox("relays remove ferry --yes"), "relay.remove"),
    "cox servers list": (cox("servers list"), READS),
    "cox servers edit": (cox("servers edit {host} --region fra"), "server.update"),
    "cox servers rm": (cox("servers rm {host}"), "server.rm"),
    "cox servers add": (_add_server, "server.add"),
    "cox servers self": (cox("servers self --host 127.0.4.1"), "server.self"),
    "cox ssh-key": (cox("ssh-key"), READS),
    "cox users add": (keeping("user", r"usr_\w+", "users add Bob --email bob@example.org"), "user.add"),
    "cox users list": (cox("users list"), READS),
    "cox users show": (cox("users show bob@example.org"), READS),
    "cox users edit": (cox("users edit bob@example.org --phone +49301234567"), "user.update"),
    "cox users suspend": (cox("users suspend bob@example.org"), "user.suspend"),
    "cox users resume": (cox("users resume bob@example.org"), "user.resume"),
    "cox devices add": (keeping("device", r"dev_\w+", "devices add bob@example.org phone"), "device.add"),
    "cox devices list": (cox("devices list"), READS),
    "cox devices show": (cox("devices show {device}"), READS),
    "cox devices edit": (cox("devices edit {device} --platform android"), "device.update"),
    "cox devices provision": (cox("devices provision {device}"), "device.provision"),
    "cox profiles create": (
        keeping("profile", r"pspec_\w+", "profiles create home --device {device} --node n1"), "profile.create"
    ),
    "cox profiles list": (cox("profiles list"), READS),
    "cox profiles edit": (cox("profiles edit {profile} --name away"), "profile.update"),
    "cox profiles export": (
        lambda w: run(w, "profiles", "export", w.ids["device"], "--out", str(w.home / "p.conf")), "profile.export"
    ),
    "cox enroll": (_invite, "enroll.invite"),
    "cox devices issue": (_issue, "device.issue"),
    "cox profile export": (_export_sealed, "profile.export"),
    "cox invites list": (cox("invites list {user}"), READS),
    "cox invites revoke": (cox("invites revoke {invite} --yes"), "enroll.revoke"),
    "cox profiles remove": (cox("profiles remove {profile} --yes"), "profile.rm"),
    "cox devices suspend": (cox("devices suspend {device}"), "device.suspend"),
    "cox devices resume": (cox("devices resume {device}"), "device.resume"),
    "cox devices revoke": (cox("devices revoke {device} --yes"), "device.revoke"),
    "cox devices remove": (cox("devices remove {device} --yes"), "device.rm"),
    "cox users remove": (cox("users remove {user} --yes"), "user.rm"),
    "cox removed": (cox("removed"), READS),
    "cox removed forget": (cox("removed forget {user} --yes"), "removed.forget"),
    "cox paths add": (cox("paths add road --hops n0,n1"), "path.create"),
    "cox paths list": (cox("paths list"), READS),
    "cox paths show": (cox("paths show road"), READS),
    "cox paths plan": (cox("paths plan --hops n1,n2"), READS),
    "cox paths color": (cox("paths color road #4fd1c4"), "path.update"),
    "cox paths provision": (cox("paths provision road"), "path.provision"),
    "cox paths edit": (cox("paths edit road --fallback n2"), "path.update"),
    "cox paths exit": (cox("paths exit road n2"), "path.exit"),
    "cox paths bind": (_bind, "path.bind"),
    "cox paths unbind": (cox("paths unbind {roamer}"), "path.unbind"),
    "cox paths rm": (cox("paths rm road"), "path.rm"),
    "cox plan": (_plan, READS),
    "cox apply": (_apply, "user.add"),
    "cox export": (cox("export"), READS),
    "cox operations list": (cox("operations list --all"), READS),
    "cox operations retry": (_retry, "operation.retry"),
    "cox operations show": (cox("operations show {failed}"), READS),
    "cox operations cancel": (_cancel, "operation.cancel"),
    "cox alerts": (_alert, READS),
    "cox alerts list": (cox("alerts list --severity warning --all"), READS),
    "cox alerts show": (cox("alerts show {alert}"), READS),
    "cox alerts snooze": (cox("alerts snooze {alert} 4h"), "alert.snooze"),
    "cox alerts ack": (cox("alerts ack {alert}"), "alert.ack"),
    "cox alerts resolve": (_resolve, "alert.resolve"),
    "cox sessions": (cox("sessions"), READS),
    "cox sessions events": (cox("sessions events"), READS),
    "cox sessions export": (cox("sessions export"), READS),
    "cox sessions totals": (cox("sessions totals"), READS),
    "cox sessions show": (_session, READS),
    "cox geoip show": (cox("geoip show"), READS),
    "cox geoip update": (_geoip, "geoip.update"),
    "cox watch": (cox("watch --json --seconds 0.2"), READS),
    "cox tokens create": (keeping("token", r"tok_\w+", "tokens create ci --scope monitor"), "token.create"),
    "cox tokens list": (cox("tokens list"), READS),
    "cox tokens revoke": (cox("tokens revoke {token}"), "token.revoke"),
    "cox admins password": (cox("admins password admin --generate"), "admin.password"),
    "cox admins add": (cox("admins add eve --generate"), "admin.add"),
    "cox admins list": (cox("admins list"), READS),
    "cox admins disable": (cox("admins disable eve"), "admin.update"),
    "cox admins enable": (cox("admins enable eve"), "admin.update"),
    "cox admins totp": (_totp, "admin.totp_remove"),
    "cox admins rm": (cox("admins rm eve --yes"), "admin.rm"),
    "cox ca show": (cox("ca show"), READS),
    "cox audit": (cox("audit"), READS),
    "cox audit head": (cox("audit head"), READS),
    "cox audit verify": (cox("audit verify"), READS),
    "cox audit export": (lambda w: run(w, "audit", "export", "--out", str(w.home / "log.ndjson")), READS),
    "cox audit prove": (_prove, READS),
    "cox audit accept": (cox("audit accept --reason because --yes", code=5), "audit.restart"),
    "cox backup create": (_backup, "backup.create"),
    "cox config show": (cox("config show"), READS),
    "cox config reload": (cox("config reload"), "config.reload"),
    "cox doctor": (cox("doctor --quick"), READS),
}  # fmt: skip
"""In an order in which they can be carried out; and the action of the record that each leaves."""


def test_every_command_has_a_row() -> None:
    commands = set(leaves(cli))
    assert commands - set(STORY) <= set(WITHOUT_DAEMON), "add what is missing to STORY, in a place where it can be done"
    assert set(STORY) <= commands


ON_THE_MACHINE = {"cox backup create"}
"""They read files, and go through no door."""


@pytest.mark.timeout(400)  # a hundred steps
def test_each_leaves_its_record(there: World) -> None:
    for name, (act, action) in STORY.items():
        if name in ON_THE_MACHINE and there.actor != ME:
            continue
        size = there.size()
        act(there)
        # What a step prepares goes over the control socket.
        ours = [e for e in there.recorded_since(size) if e["actor_kind"] != "system"]
        assert {e["actor"] for e in ours} <= {ME, there.actor}, name
        found = {e["action"] for e in ours if e["actor"] == there.actor}
        if action is READS:
            assert not found, f"{name} only reads, and left records: {found}"
        else:
            assert action in found, f"{name} left no record {action!r}, but {found}"
