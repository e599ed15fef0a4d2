"""``cox`` against a real controller: what is printed, what is written, which exit code says what."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from actors.main import cli
from coxswain import __version__
from coxswain.cli.alerts import about
from coxswain.messages.audit import Caller
from coxswain.messages.servers import PutServer
from tests.fleet import Controller, peers_body
from tests.support import an_addr, eventually, free_port

Cox = Callable[..., Result]
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFfO0ZtHt4P2SJUA157w8YSDWtv2g0faqFpBtbTDCuIV"


@pytest.fixture
def cox(controller: Controller) -> Cox:
    def run(*arguments: str, code: int = 0, text: str = "") -> Result:
        config = str(controller.home.parent / "cox.yaml")
        result = CliRunner().invoke(cli, [*arguments, "--config", config], input=text, prog_name="cox")
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        return result

    return run


def refused(result: Result) -> str:
    """The sentence of an error, which has to be alone on its line, on stderr."""
    first, *rest = result.stderr.splitlines()
    assert first.startswith("cox: ") and len(rest) <= 1 and not result.stdout
    return first


def write_csr(path: Path, *names: str) -> Path:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil.example")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
    path.write_bytes(request.public_bytes(serialization.Encoding.PEM))
    return path


def test_add_says_what_to_do_next(cox: Cox) -> None:
    out = cox("nodes", "add", "next", "--addr", "192.0.2.7", "--region", "fra").stdout
    assert "192.0.2.7:8444" in out
    assert "cox-node gen-csr" in out and "cox nodes enroll next --csr" in out
    assert "cox nodes endpoints next IP" in out, "clients would not be given a node of which nobody knows where it is"
    out = cox("nodes", "add", "public", "--addr", an_addr(), "--public-ip", "192.0.2.8").stdout
    assert "endpoints" not in out


@pytest.mark.parametrize("name", ["a,b", "-x", " -x", "nod_aaaaaaaaaaaaaaaa", "usr_aaaaaaaaaaaaaaaa"])
def test_a_name_that_no_command_could_be_given_is_refused_here_and_taken_by_the_api(
    cox: Cox, controller: Controller, name: str
) -> None:
    cox("nodes", "add", "renamed", "--addr", an_addr())
    before = [node["name"] for node in controller.client.get("/api/nodes")]
    for command in (("add", "--addr", "h"), ("add", "h"), ("edit", "renamed")):
        said = refused(cox("nodes", *command, f"--name={name}", code=2))
        assert f"cox: name: {name!r} would be " in said, command
    assert [node["name"] for node in controller.client.get("/api/nodes")] == before
    node = controller.client.post("/api/nodes", {"name": name, "control_addr": an_addr()})["id"]
    cox("nodes", "edit", node, "--region", "fra")
    for gone in (node, "renamed"):
        cox("nodes", "remove", gone)


def test_other_names_are_taken(cox: Cox) -> None:
    for name in ("Zürich 1", "a.b", "nod_1", "x-"):
        cox("nodes", "add", name, "--addr", an_addr())
        cox("nodes", "remove", name)


def test_what_a_new_machine_lacks_is_said_before_it_is_dialled(cox: Cox, tmp_path: Path) -> None:
    for role in ("nodes", "relays"):
        add = (role, "add", "203.0.113.250", "--accept-new-host-key", "--binary")
        assert f"binary: {tmp_path}/cox.pyz is not there" in refused(cox(*add, str(tmp_path / "cox.pyz"), code=2))
    assert "There are no machines" in cox("servers", "list").stdout


def test_who_only_names_a_node_is_told_what_is_missing(cox: Cox) -> None:
    said = cox("nodes", "add", "fra-9", code=8).stderr
    assert "--server SERVER --name fra-9" in said and "cox nodes add fra-9 --addr HOST" in said
    assert "--name" not in cox("nodes", "add", "fra-9.invalid", code=8).stderr, "a host's name, and mistyped"


def test_the_rules_of_a_node_and_what_they_would_be(cox: Cox) -> None:
    cox("nodes", "add", "ruled", "--addr", an_addr())
    out = cox("nodes", "policy", "ruled").stdout
    assert out.startswith("ruled: forwarding, masquerade\n") and "cox nodes plan ruled" in out
    assert "\n  iptables -t nat -A POSTROUTING -o %e -j MASQUERADE\n" in out and "DROP" not in out
    out = cox("nodes", "policy", "ruled", "--isolation", "--no-masquerade").stdout
    assert out.startswith("ruled: forwarding, isolation\n") and "-j DROP" in out and "MASQUERADE" not in out
    assert json.loads(cox("nodes", "policy", "ruled", "--json").stdout)["notes"] == []
    assert "needs forwarding" in refused(cox("nodes", "policy", "ruled", "--no-forwarding", code=2))
    out = cox("nodes", "policy", "ruled", "--no-forwarding", "--no-masquerade").stdout
    assert out == "ruled: no forwarding\n"
    cox("nodes", "remove", "ruled")


def test_lists_are_aligned_and_absent_values_are_dashes(cox: Cox) -> None:
    cox("nodes", "add", "list-a", "--addr", an_addr())
    cox("nodes", "add", "a-longer-name-than-others", "--addr", an_addr(), "--region", "fra")
    head, *rows = cox("nodes", "list").stdout.splitlines()
    assert not any(row != row.rstrip() for row in rows)
    columns = [match.start() for match in re.finditer(r"\S+(?: \S+)*", head)]
    assert head.split("  ")[0] == "ID" and head.split()[:7] == ["ID", "NAME", "REGION", "STATUS", "SSH", "HOST", "AGENT"]
    for row in rows:
        for start in columns[1:]:
            assert row[start - 2 : start] == "  " and row[start] != " ", (row, start)
    row = next(row for row in rows if "  list-a  " in row)
    assert row.split()[2] == "-", "no region"


def test_scripts_of_the_existing_controller_are_not_asked(cox: Cox, controller: Controller) -> None:
    """They know no ``--yes``; what comes in is what their own loop reads: a line of it is no answer."""
    way = json.loads(cox("control-paths", "add", "gone soon", "--json").stdout)["id"]
    cox("control-paths", "rm", way, text="no\n")
    assert way not in cox("control-paths", "list").stdout
    put = PutServer(Caller("tests", "system"), "192.0.2.60", 22, "root", HOST_KEY)
    machine = controller.system.ask("servers", put, deadline=30).value.id
    cox("servers", "rm", machine, text="no\n")
    assert "There are no machines" in cox("servers", "list").stdout
    refused(cox("servers", "rm", machine, code=4))


def test_show_edit_disable_enable_remove(cox: Cox) -> None:
    cox("nodes", "add", "life", "--addr", an_addr())
    cox("nodes", "edit", "life", "--region", "ams", "--isolation")
    shown = cox("nodes", "show", "life").stdout
    assert re.search(r"^region +ams$", shown, re.MULTILINE)
    assert re.search(r"^policy +forwarding, masquerade, isolation$", shown, re.MULTILINE)
    assert "none: enrol it with" in shown
    assert "disabled" in cox("nodes", "disable", "life").stdout
    assert "enabled" in cox("nodes", "enable", "life").stdout
    cox("nodes", "remove", "life")  # a script of the existing controller knows no --yes
    assert "no node" in refused(cox("nodes", "show", "life", code=4))


def test_a_node_is_renamed_by_its_name(cox: Cox) -> None:
    cox("nodes", "add", "maiden", "--addr", an_addr())
    assert cox("nodes", "edit", "maiden", "--name", "married").stdout.startswith("married: changed")
    assert json.loads(cox("nodes", "show", "married", "--json").stdout)["version"] == 2
    cox("nodes", "remove", "married")


def test_enroll_writes_two_files_and_names_what_it_ignored(cox: Cox, tmp_path: Path) -> None:
    cox("nodes", "add", "enrolled", "--addr", an_addr())
    csr = write_csr(tmp_path / "node.csr", "other.example")
    out = cox("nodes", "enroll", "enrolled", "--csr", str(csr), "--out", str(tmp_path / "deep/out")).stdout
    leaf = x509.load_pem_x509_certificate((tmp_path / "deep/out/node.crt").read_bytes())
    assert "example" not in leaf.subject.rfc4514_string()
    x509.load_pem_x509_certificate((tmp_path / "deep/out/ca.crt").read_bytes())
    assert "other.example" in out and "evil.example" in out
    assert "/etc/node/" in out and "restart" in out
    assert sorted(p.name for p in (tmp_path / "deep/out").iterdir()) == ["ca.crt", "node.crt"]
    from_stdin = cox("nodes", "enroll", "enrolled", "--csr", "-", "--json", text=csr.read_text())
    assert "BEGIN CERTIFICATE" in json.loads(from_stdin.stdout)["node_crt"]
    assert "revoked" in cox("nodes", "revoke", "enrolled", "--reason", "lost").stdout


def test_a_csr_that_is_none_is_refused(cox: Cox, tmp_path: Path) -> None:
    cox("nodes", "add", "bad-csr", "--addr", an_addr())
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\x00" * 100)
    (tmp_path / "huge").write_text("x" * 100_000)
    (tmp_path / "text").write_text("hello")
    for name in ("empty", "binary", "huge", "text", "absent"):
        result = cox("nodes", "enroll", "bad-csr", "--csr", str(tmp_path / name), "--out", str(tmp_path / "out"), code=2)
        assert refused(result).startswith("cox: csr: "), name
        assert not (tmp_path / "out").exists(), "nothing is left of what was refused"


def test_no_certificate_is_issued_that_cannot_be_written_down(cox: Cox, controller: Controller, tmp_path: Path) -> None:
    cox("nodes", "add", "nowhere", "--addr", an_addr())
    csr = write_csr(tmp_path / "node.csr")
    before = controller.client.get("/api/audit/head")
    result = cox("nodes", "enroll", "nowhere", "--csr", str(csr), "--out", str(csr / "below-a-file"), code=2)
    assert "cannot be written to" in refused(result)
    assert controller.client.get("/api/audit/head") == before


def test_a_plan_of_an_unreachable_node(cox: Cox) -> None:
    cox("nodes", "add", "unreached", "--addr", an_addr())
    for command in ("plan", "status", "push"):
        assert "enrol" in refused(cox("nodes", command, "unreached", code=8))


def test_every_query_speaks_json(cox: Cox) -> None:
    cox("nodes", "add", "as-json", "--addr", an_addr())
    wanted: dict[tuple[str, ...], type[Any]] = {
        ("status",): dict,
        ("tree",): dict,
        ("nodes", "list"): list,
        ("nodes", "show", "as-json"): dict,
        ("sessions",): list,
        ("ca", "show"): dict,
        ("audit",): list,
        ("config", "check"): dict,
        ("config", "show"): dict,
    }
    for command, kind in wanted.items():
        assert isinstance(json.loads(cox(*command, "--json").stdout), kind), command


def test_every_query_speaks_to_people(cox: Cox, controller: Controller) -> None:
    node = controller.client.post("/api/nodes", {"name": "told", "control_addr": an_addr()})
    controller.client.post("/api/peers", peers_body([node["id"]], 1, first=900))
    assert "1 user, 1 device, 1 peer" in cox("status").stdout
    assert "all running" in cox("status").stdout
    tree = cox("tree").stdout
    assert "├── fleet" in tree and "└── control_socket" in tree and "│   ├── node_links" in tree
    assert node["id"] not in tree
    assert eventually(lambda: node["id"] in cox("tree", "--links").stdout)
    assert cox("sessions").stdout == "There are no such sessions.\n"
    assert "root" in cox("ca", "show").stdout
    assert "peers.apply" in cox("audit", "--limit", "5").stdout
    assert re.search(r"^retention\.audit_days +30 +preset personal$", cox("config", "show").stdout, re.MULTILINE)
    assert cox("config", "check").stdout.endswith(": fine\n")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nodes", "add", " ", "--addr", "h"), 2, "not a name"),
        (("nodes", "add", "b", "--addr", "h:0"), 2, "control_addr: 'h:0'"),
        (("nodes", "add", "b", "--addr", "h", "--region", "\x1b[31m"), 2, "region: "),
        (("nodes", "show", "../status"), 4, "no node"),
        (("nodes", "show", "%2e%2e"), 4, "no node"),
        (("nodes", "disable", "nobody"), 4, "no node"),
        (("sessions", "--node", "nobody"), 4, "no node"),
        (("sessions", "show", "x y"), 4, "none with the id 'x y'"),
        (("sessions", "show", "99"), 4, "none with the id 99"),
        (("alerts", "show", "x"), 4, "none with the id 'x'"),
        (("operations", "list", "--kind", "nope"), 2, "kind: 'nope' is none of geoip.update, node.add, "),
    ],
)
def test_what_cannot_be_is_one_sentence(cox: Cox, arguments: tuple[str, ...], code: int, says: str) -> None:
    sentence = refused(cox(*arguments, code=code))
    assert says in sentence
    assert "\x1b" not in sentence


def test_what_there_is_none_of_is_a_sentence(cox: Cox) -> None:
    nobody = ("--user", "usr_nobody")
    for arguments in (
        ("audit", "--action", "no.such"),
        ("sessions", "events", *nobody),
        ("sessions", "totals", *nobody),
        ("paths", "list"),
    ):
        out = cox(*arguments).stdout
        assert out.endswith(".\n") or "Build one with: cox paths add" in out, out


@pytest.mark.parametrize(
    ("detail", "node_id", "says"),
    [
        ({"node_name": "ams-1"}, "nod_a", "ams-1"),
        ({"path_name": "far", "own_exit": "ams-1", "exit": "fra-1"}, "nod_a", "path far"),
        ({}, "nod_a", "nod_a"),
        ({"username": "eve"}, "", "eve"),
        ({"by": "root", "name": "for-the-watcher", "scope": "readonly"}, "", "for-the-watcher"),
        ({"by": "root", "name": "Eve", "email": "eve@example.org"}, "", "eve@example.org"),
        (None, "", ""),
    ],
)
def test_a_list_of_alerts_says_what_each_is_about(detail: dict[str, str] | None, node_id: str, says: str) -> None:
    assert about({"detail": detail, "node_id": node_id, "source_ips": []}) == ("", "", says)


def test_names_are_taken_once(cox: Cox) -> None:
    cox("nodes", "add", "twice", "--addr", an_addr())
    assert "twice" in refused(cox("nodes", "add", "twice", "--addr", an_addr(), code=5))


def test_the_version_needs_no_configuration() -> None:
    for arguments in (["--version"], ["version"]):
        assert CliRunner().invoke(cli, arguments, prog_name="cox").stdout == f"{__version__}\n"
    assert json.loads(CliRunner().invoke(cli, ["version", "--json"]).stdout) == {"version": __version__}


def test_wrong_usage_is_told_with_the_nearest_command() -> None:
    for arguments, says in (
        (["nodse"], "Did you mean 'nodes'?"),
        (["nodes", "lst"], "Did you mean 'list'?"),
        (["--config", "a.yaml", "status"], "goes after the command: cox COMMAND --config a.yaml"),
        (["nodes", "enroll", "x"], "--csr"),
        (["sessions", "--limit", "0"], "--limit"),
    ):
        result = CliRunner().invoke(cli, arguments, prog_name="cox")
        assert result.exit_code == 2
        assert says in result.stderr, arguments


def test_help_names_every_command_and_group() -> None:
    out = CliRunner().invoke(cli, ["--help"], prog_name="cox").stdout
    for name in ("init", "serve", "status", "tree", "nodes", "sessions", "watch", "ca", "audit", "config", "version"):
        assert re.search(rf"^  {name} ", out, re.MULTILINE), name
    out = CliRunner().invoke(cli, ["nodes", "-h"], prog_name="cox").stdout
    for name in "add enroll list show status plan push edit enable disable revoke remove".split():  # noqa: SIM905
        assert re.search(rf"^  {name} ", out, re.MULTILINE), name


def test_the_configuration_of_a_running_daemon(cox: Cox, controller: Controller) -> None:
    path = controller.home.parent / "cox.yaml"
    before = path.read_text()
    try:
        path.write_text(before + "retention: {audit_days: 8}\nsiem: {listen: '127.0.0.1:1'}\n")
        pending = cox("config", "show", "--pending").stdout
        assert re.search(r"^retention.audit_days +30 +8 +cox config reload$", pending, re.MULTILINE)
        assert re.search(r"^siem.listen +- +127.0.0.1:1 +the next start$", pending, re.MULTILINE)
        assert json.loads(cox("config", "show", "--running", "--json").stdout)["retention.audit_days"]["value"] == 30
        assert "retention.audit_days: 30 -> 8" in cox("config", "reload").stdout
        assert controller.client.get("/api/audit?limit=1")[0]["action"] == "config.reload"
        running = cox("config", "show", "--running", "--changed").stdout
        assert re.search(r"^retention.audit_days +8 +line 3$", running, re.MULTILINE) and "siem.listen" not in running
        path.write_text("posture: personal\nlog:\n  level: loud\n")
        assert "'loud' is not accepted" in refused(cox("config", "reload", code=2))
        assert controller.client.get("/api/audit?limit=1")[0]["result"] == "error"
        assert "not sound" in cox("config", "show", "--pending").stdout
    finally:
        path.write_text(before)
        cox("config", "reload")
    assert "nothing waits" in cox("config", "show", "--pending").stdout


def test_what_became_of_a_step_is_said_below_it(cox: Cox) -> None:
    said = cox("geoip", "update", "--url", f"http://127.0.0.1:{free_port()}/x", "--sha256", "0" * 64, code=8).stdout
    lines = [line.partition(" (")[0] for line in said.splitlines()]
    title = next(place for place, line in enumerate(lines) if line.endswith("fetch it, and look into it"))
    fetching = next(place for place, line in enumerate(lines) if line.startswith("    fetching http://127.0.0.1"))
    note = next(place for place, line in enumerate(lines) if line.startswith("! its step 'fetch' failed"))
    assert title < fetching < note, said


def test_what_nobody_changed_is_not_called_changed(tmp_path: Path) -> None:
    """``cox init`` writes the presets into the file."""
    config = tmp_path / "cox.yaml"

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli, [*arguments, "--config", str(config)], prog_name="cox")
        assert done.exit_code == 0, done.output
        return done.stdout

    run("init", "--personal")
    assert set(json.loads(run("config", "show", "--changed", "--json"))) == {"posture", "state_dir"}
    config.write_text(config.read_text().replace("audit_days: 30", "audit_days: 31"))
    changed = json.loads(run("config", "show", "--changed", "--json"))
    assert changed["retention.audit_days"] == {"value": 31, "from": "line 19"} and len(changed) == 3


@pytest.mark.parametrize("what", ["events", "totals"])
def test_when_is_said_as_to_the_audit_log(cox: Cox, what: str) -> None:
    for since in ("2h", "3d", "2026-01-31", "2026-01-31T12:00:00Z"):
        cox("sessions", what, "--since", since, "--until", "1m")
    for mistaken in ("yesterday", "2 h", "99999999999d", "-1h"):
        assert "like 30m, 24h or 7d" in cox("sessions", what, "--since", mistaken, code=2).stderr
