"""``cox users``, ``devices``, ``profiles`` and ``nodes endpoints`` against a real controller with one simulated node."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actors.main import cli
from coxswain.accounts.container import open_password, read_container
from tests.fleet import LiveFleet, live_fleet

Cox = Callable[..., Result]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    home = tmp_path_factory.mktemp("cli")
    with live_fleet(home, 1, 13_700, config="posture: personal\nstate_dir: state\n") as running:
        yield running


@pytest.fixture
def cox(fleet: LiveFleet) -> Cox:
    def run(*arguments: str, code: int = 0, text: str = "") -> Result:
        config = str(fleet.controller.home.parent / "cox.yaml")
        result = CliRunner().invoke(cli, [*arguments, "--config", config], input=text, prog_name="cox")
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        return result

    return run


def test_from_a_user_to_a_file_for_a_client_and_back(
    cox: Cox, fleet: LiveFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = cox("nodes", "endpoints", "n0", "198.51.100.7, 198.51.100.8").stdout
    assert "198.51.100.7 198.51.100.8" in out
    assert json.loads(cox("nodes", "endpoints", "n0", "--json").stdout)["endpoint_ips"] == ["198.51.100.7", "198.51.100.8"]

    out = cox("users", "add", "Ann", "--email", "Ann@Example.org").stdout
    assert "ann@example.org" in out
    assert "cox devices add usr_" in out
    out = cox("devices", "add", "ann@example.org", "phone", "--platform", "android").stdout
    device = re.search(r"dev_\w+", out)
    assert device is not None
    out = cox("devices", "provision", device[0]).stdout
    assert "acknowledged by 1 node\n" in out
    assert "all nodes" in cox("devices", "show", device[0]).stdout
    cox("devices", "edit", device[0], "--name", "mobile")
    edited = cox("devices", "edit", device[0], "--name", "phone", "--platform", "ios", "--json").stdout
    assert [json.loads(edited)[key] for key in ("name", "platform", "provisioned")] == ["phone", "ios", True]

    chosen = ["--user", "ann@example.org", "--node", "n0", "--entry-ips", "198.51.100.8"]
    out = cox("profiles", "create", "home", *chosen).stdout
    assert "it had every node until now" in out
    profile = re.search(r"pspec_\w+", out)
    assert profile is not None
    assert "node n0" in cox("profiles", "list").stdout
    assert "198.51.100.8" in cox("profiles", "list", "--user", "ann@example.org").stdout
    cox("profiles", "edit", profile[0], "--name", "away", "--entry-ips", "198.51.100.7")

    cox("profiles", "export", "phone", "--user", "ann@example.org", "--out", "phone.conf")
    file = tmp_path / "phone.conf"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "Endpoint = 198.51.100.7:443\n" in file.read_text()
    again = cox("profiles", "export", device[0], "--out", "phone.conf", code=2)
    assert "is there already" in again.stderr
    container = json.loads(json.loads(cox("profiles", "export", device[0], "--format", "pharos", "--json").stdout)["text"])
    assert (container["fmt"], container["payload"]["profiles"][0]["name"]) == ("pharos-profile", "away")
    under = ["--format", "pharos", "--password", "--out", "locked.pharos"]
    assert "under the password" in cox("profiles", "export", device[0], *under, text="correct horse battery\n").stdout
    opened = json.loads(open_password(read_container((tmp_path / "locked.pharos").read_text()), "correct horse battery"))
    assert opened["profiles"] == container["payload"]["profiles"]
    exports = fleet.controller.client.get("/api/audit?action=profile.export&limit=100")
    cox("profiles", "export", device[0], *under, text="correct horse battery\n", code=2)
    assert fleet.controller.client.get("/api/audit?action=profile.export&limit=100") == exports, "nothing was handed out"
    assert "no XRay keys" in cox("profiles", "export", device[0], "--format", "vless", code=5).stderr

    assert "is suspended" in cox("users", "suspend", "ann@example.org").stdout
    assert "is active" in cox("users", "resume", "ann@example.org").stdout
    cox("devices", "suspend", device[0])
    assert not cox("devices", "resume", device[0]).stderr
    assert not cox("devices", "provision", device[0]).stderr
    cox("users", "suspend", "ann@example.org")
    assert "but its user Ann is suspended" in cox("devices", "provision", device[0]).stderr
    cox("devices", "suspend", device[0])
    assert f"but it is suspended: it is on no node before: cox devices resume {device[0]}" in (
        cox("devices", "provision", device[0]).stderr
    )
    resumed = cox("devices", "resume", device[0])
    assert "but its user Ann is suspended" in resumed.stderr
    assert "cox users resume ann@example.org" in resumed.stderr
    cox("users", "resume", "ann@example.org")
    assert "phone" in cox("users", "show", "ann@example.org").stdout
    assert "Ann" in cox("users", "list").stdout
    cox("users", "edit", "ann@example.org", "--phone", "+49 30 1234567")
    cox("profiles", "remove", profile[0], text="y\n")
    cox("devices", "revoke", device[0], code=1, text="n\n")
    assert "nobody to ask: Revoke phone (dev_" in cox("devices", "revoke", device[0], code=2).stderr
    assert "no device" in cox("devices", "revoke", "tablet", code=4, text="y\n").stderr, "it looks before it asks"
    assert "is revoked" in cox("devices", "revoke", device[0], "--yes").stdout
    cox("devices", "remove", device[0], "--yes")
    cox("users", "remove", "ann@example.org", "--yes")
    assert "There are no users yet" in cox("users", "list").stdout
    assert "There are no devices yet" in cox("devices", "list").stdout
    assert "There are no profiles" in cox("profiles", "list").stdout


def test_mistakes(cox: Cox) -> None:
    assert "which one is not said" in cox("profiles", "create", "x", "--node", "n0", code=2).stderr
    assert "no device" in cox("profiles", "create", "x", "--device", "phone", "--node", "n0", code=4).stderr
    for command in (
        ("users", "show"),
        ("devices", "list", "--user"),
        ("enroll",),
        ("invites", "list"),
        ("profile", "export"),
    ):
        assert "no user with the id, e-mail address or name 'Bob'" in cox(*command, "Bob", code=4).stderr
    for command in (("devices", "show"), ("devices", "suspend"), ("profiles", "list", "--device"), ("alerts", "--device")):
        assert "no device with the id or name 'phone'" in cox(*command, "phone", code=4).stderr
        cox(*command, "x" * 200, code=4)
    assert "cox profiles list" in cox("profiles", "remove", "home", "--yes", code=4).stderr
    assert "cox users list" in cox("users", "show", "nobody@example.org", code=4).stderr
    cox("users", "add", "Bob", "--email", "bob@example.org")
    assert "has no device" in cox("profiles", "create", "x", "--user", "bob@example.org", "--node", "n0", code=4).stderr
    assert "cox devices add bob@example.org NAME" in cox("profile", "export", "bob@example.org", code=4).stderr
    assert "not an e-mail address" in cox("users", "add", "Eve", "--email", "eve", code=2).stderr
    assert json.loads(cox("users", "show", "bob@example.org", "--json").stdout)["devices"] == []
    cox("users", "remove", "bob@example.org", text="n\n", code=1)
    cox("users", "remove", "bob@example.org", "--yes")


def test_a_name_does_where_an_id_is_asked_for_unless_several_have_it(cox: Cox, fleet: LiveFleet) -> None:
    cox("nodes", "endpoints", "n0", "198.51.100.9")
    api = fleet.controller.client
    ann, other = (api.post("/api/users", {"name": name, "email": f"{name[-1]}@x.org"})["id"] for name in ("Dora", "Dora B"))
    cox("devices", "add", "Dora", "watch")
    assert "a@x.org" in cox("users", "show", "Dora").stdout
    assert "watch" in cox("devices", "list", "--user", "Dora").stdout
    assert f"Dora {ann}" in cox("devices", "show", "watch").stdout
    cox("devices", "edit", "watch", "--platform", "wear")
    cox("devices", "provision", "watch")
    for what, thing in (("users", "Dora"), ("devices", "watch")):
        assert "is suspended" in cox(what, "suspend", thing).stdout
        assert "is active" in cox(what, "resume", thing).stdout
    cox("users", "edit", "Dora", "--phone", "+49 30 55")
    created = cox("profiles", "create", "work", "--user", "Dora", "--node", "n0").stdout
    assert re.search(r"^egress +node n0$", created, re.MULTILINE)
    fleet.nodes.do("kill", node=0)
    assert "pending on 1, which follow by themselves: n0\n" in cox("devices", "suspend", "watch", "--wait", "0").stdout
    cox("devices", "resume", "watch", "--wait", "0")
    fleet.nodes.do("start", node=0)
    fleet.controller.until("n0", link_state="live", in_sync=True)
    cox("profiles", "edit", "work", "--name", "at work")
    assert (
        "at work" in cox("profiles", "list", "--device", "watch").stdout == cox("profiles", "list", "--user", "Dora").stdout
    )
    cox("alerts", "--device", "watch", "--node", "n0")

    cox("devices", "add", "Dora B", "watch")
    cox("profiles", "create", "at work", "--user", "Dora B", "--device", "watch", "--node", "n0")
    for command in (("devices", "show"), ("devices", "revoke"), ("profiles", "export"), ("profiles", "list", "--device")):
        said = cox(*command, "watch", code=2).stderr
        assert "2 have the name 'watch': dev_" in said and "(of Dora), dev_" in said and "(of Dora B)" in said, command
    assert "at work" in cox("profiles", "list", "--user", "Dora", "--device", "watch").stdout
    said = cox("profiles", "remove", "at work", "--yes", code=2).stderr
    assert said.count("pspec_") == said.count("(of watch)") == 2
    cox("users", "add", "Dora", "--email", "c@x.org")
    said = cox("users", "remove", "Dora", "--yes", code=2).stderr
    assert f"2 have the name 'Dora': {ann} (a@x.org), usr_" in said and "(c@x.org)" in said
    cox("users", "remove", "c@x.org", "--yes")
    cox("devices", "revoke", json.loads(cox("devices", "list", "--user", other, "--json").stdout)[0]["id"], "--yes")
    cox("users", "remove", "Dora B", "--yes")
    assert "is revoked" in cox("devices", "revoke", "watch", "--yes").stdout
    cox("devices", "remove", "watch", "--yes")
    cox("users", "remove", "Dora", "--yes")


def test_links_and_files_are_private_and_never_written_over(
    cox: Cox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cox("users", "add", "Cem", "--email", "cem@example.org")
    assert "relay.public_endpoint" in cox("enroll", "cem@example.org", code=5).stderr
    relay = ("--relay", "relay.example:443")
    out = cox("enroll", "cem@example.org", *relay, "--ttl", "600").stdout
    link = re.search(r"pharosvpn://enroll\?\S+", out)
    ticket = re.search(r"tkt_\w+", out)
    assert link is not None and ticket is not None
    picture = tmp_path / "cem@example.org-enroll.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and stat.S_IMODE(picture.stat().st_mode) == 0o600
    before = cox("invites", "list", "cem@example.org", "--json").stdout
    assert "is there already" in cox("enroll", "cem@example.org", *relay, code=2).stderr
    assert "is no directory" in cox("enroll", "cem@example.org", *relay, "--out", "no/where.png", code=2).stderr
    assert cox("invites", "list", "cem@example.org", "--json").stdout == before, "no ticket for a picture that is not kept"
    assert "open" in cox("invites", "list", "cem@example.org").stdout
    assert link[0].rpartition("token=")[2] not in before
    cox("invites", "revoke", ticket[0], code=1, text="n\n")
    cox("invites", "revoke", ticket[0], "--yes")
    assert "revoked" in cox("invites", "list", "cem@example.org").stdout

    out = cox("devices", "issue", "cem@example.org", "--name", "box", *relay).stdout
    identity = tmp_path / "cem@example.org.pharosid"
    assert stat.S_IMODE(identity.stat().st_mode) == 0o600
    assert json.loads(identity.read_text())["relay_server_name"] == "relay.example"
    assert "PRIVATE KEY" not in out
    assert "is there already" in cox("devices", "issue", "cem@example.org", *relay, code=2).stderr
    assert "is no directory" in cox("devices", "issue", "cem@example.org", *relay, "--out", "no/x", code=2).stderr
    assert len(json.loads(cox("devices", "list", "--user", "cem@example.org", "--json").stdout)) == 1
    device = re.search(r"dev_\w+", out)
    assert device is not None
    assert "nothing yet" in cox("devices", "show", device[0]).stdout
    cox("profile", "export", "cem@example.org")
    sealed = tmp_path / "cem@example.org.pharos"
    assert json.loads(sealed.read_text())["enc"] == "account" and stat.S_IMODE(sealed.stat().st_mode) == 0o600
    assert "is there already" in cox("profile", "export", "cem@example.org", code=2).stderr
    other = cox("devices", "add", "cem@example.org", "phone", "--json").stdout
    never = cox("profile", "export", "cem@example.org", "--device", "phone", "--out", "x.pharos", code=5)
    assert f"cox enroll {json.loads(other)['user_id']} --device" in never.stderr
    assert "never" in cox("devices", "show", json.loads(other)["id"]).stdout
    cox("users", "remove", "cem@example.org", "--yes")


def test_a_taken_address_is_named(cox: Cox) -> None:
    cox("users", "add", "Zoe", "--email", "zoe@example.org")
    said = cox("users", "add", "Zoe again", "--email", "zoe@example.org", code=5).stderr
    cox("users", "remove", "zoe@example.org", "--yes")
    assert said == "cox: email: another user has it already\n     Choose another email.\n"


def test_what_cannot_be_undone_is_not_done_where_nobody_can_be_asked(cox: Cox) -> None:
    user = json.loads(cox("users", "add", "Kim", "--email", "kim@example.org", "--json").stdout)["id"]
    device = json.loads(cox("devices", "add", user, "phone", "--json").stdout)["id"]
    for command in (
        ("users", "rm", user),
        ("devices", "revoke", device),
        ("devices", "rm", device),
        ("invites", "revoke", "x"),
    ):
        told = cox(*command, code=2).stderr
        assert "there is nobody to ask: " in told and "?" in told and "--yes" in told
    cox("devices", "show", device)
    cox("users", "rm", user, text="y\n")
