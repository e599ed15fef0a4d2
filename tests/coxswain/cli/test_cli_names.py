"""What has a name is shown by it, and not by its id; on a real controller, whose things come and go."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from actors.main import cli
from coxswain.cli.client import Client
from coxswain.cli.live import Picture
from coxswain.cli.names import Names, ids_called
from coxswain.cli.nodes import _up
from coxswain.messages.audit import Caller
from coxswain.messages.servers import PutServer
from tests.fleet import Controller
from tests.support import eventually, free_port

Cox = Callable[..., Result]
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFfO0ZtHt4P2SJUA157w8YSDWtv2g0faqFpBtbTDCuIV"


@pytest.fixture
def cox(controller: Controller) -> Cox:
    def run(*arguments: str, code: int = 0) -> Result:
        config = str(controller.home.parent / "cox.yaml")
        result = CliRunner().invoke(cli, [*arguments, "--config", config], prog_name="cox")
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        return result

    return run


@pytest.fixture
def machine(controller: Controller) -> str:
    """The id of one that nobody reaches."""
    put = PutServer(Caller("tests", "system"), "127.0.0.1", free_port(), "root", HOST_KEY, name="attic")
    found: str = controller.system.ask("servers", put, deadline=30).value.id
    return found


def test_a_node_says_on_which_machine_it_is_and_operations_about_which_node(
    cox: Cox, controller: Controller, machine: str
) -> None:
    cox("nodes", "add", "upstairs", "--addr", "127.0.0.1:9")
    assert "machine         -\n" in cox("nodes", "show", "upstairs").stdout
    cox("nodes", "edit", "upstairs", "--server", "attic")
    assert f"machine         attic {machine}\n" in cox("nodes", "show", "upstairs").stdout
    cox("nodes", "stop", "upstairs", code=8)
    node = controller.client.get("/api/nodes/upstairs")["id"]
    (operation,) = controller.client.get(f"/api/operations?target={node}")
    row = next(line for line in cox("operations", "list").stdout.splitlines() if operation["id"] in line)
    assert "  upstairs  " in row and node not in row
    assert f"node upstairs {node}\n" in cox("operations", "show", operation["id"]).stdout
    for target in ("upstairs", node):
        listed = json.loads(cox("operations", "list", "--target", target, "--json").stdout)
        assert [each["id"] for each in listed] == [operation["id"]], target
    cox("operations", "cancel", operation["id"])
    cox("nodes", "remove", "upstairs", "--yes", "--forget")
    assert "  upstairs (removed)  " in eventually(lambda: _with(cox, operation["id"], "upstairs (removed)"))


def _with(cox: Cox, operation: str, words: str) -> str | None:
    listed = cox("operations", "list", "--all").stdout
    return listed if operation in listed and words in listed else None


def test_a_name_that_several_things_have_is_all_of_them(controller: Controller) -> None:
    asking = Client(controller.home / "control.sock")
    user = asking.post("/api/users", {"name": "twin"})["id"]
    device = asking.post(f"/api/users/{user}/devices", {"name": "twin"})["id"]
    assert sorted(ids_called(asking, "twin")) == sorted([user, device])
    assert ids_called(asking, user) == [] and ids_called(asking, "twi") == []


def test_the_feed_names_devices_and_their_users(controller: Controller) -> None:
    asking = Client(controller.home / "control.sock")
    user = asking.post("/api/users", {"name": "Ann"})["id"]
    device = asking.post(f"/api/users/{user}/devices", {"name": "phone"})["id"]
    names = Names(asking)
    picture = Picture({}, [], names=names, feed_rows=2)
    at = "2026-01-02T03:04:05.678Z"
    here = {"type": "PEER_DISCONNECTED", "at": at, "node_id": "nod_a", "device_id": device, "user": user}
    strange = here | {"device_id": "dev_of_nobody", "user": "usr_nobody"}
    picture.take_events([here, strange, {"kind": "of.tomorrow", "at": at}, {"kind": "of.tomorrow", "at": at}])
    assert [text for _, _, text in picture.feed] == [
        "phone (Ann) on nod_a: disconnect",
        "dev_of_nobody on nod_a: disconnect",
    ]
    assert names.of("dev_of_nobody") == "dev_of_nobody"


def test_a_name_that_could_not_be_asked_for_is_asked_for_again(controller: Controller) -> None:
    asking = Client(controller.home / "control.sock")
    user = asking.post("/api/users", {"name": "Late"})["id"]
    away = Names(Client(controller.home / "no.sock"))
    away.learn([user])
    assert away.of(user) == user and user not in away.known
    away._asking = asking
    away.learn([user, user])
    assert away.of(user) == "Late"


def test_what_only_begins_like_an_id_keeps_no_other_from_its_name(controller: Controller) -> None:
    """The audit log has as its target what somebody asked for, whatever that was."""
    asking = Client(controller.home / "control.sock")
    user = asking.post("/api/users", {"name": "Beside"})["id"]
    names, strange = Names(asking), ["usr_a b", "usr_ä/..\r\n", "usr_", "nod_a,b&ids=c", "usr_x?y#z"]
    names.learn([*strange, user])
    assert [names.of(key) for key in [*strange, user]] == [*strange, "Beside"]


def test_uptime_goes_on_from_the_last_look_and_without_a_link_it_is_old() -> None:
    seen = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=100)).isoformat()
    assert _up({"uptime_seconds": 20, "last_seen": seen}) in ("up 2m", "up 2m 1s")
    assert _up({"uptime_seconds": 20, "last_seen": None}) == "up 20s at the last look"
