"""The pages for operators say what there is, and all of it."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from actors.main import cli
from coxswain.alerts.model import KINDS
from coxswain.api.table import ROUTES
from coxswain.api.views import node
from coxswain.config import KEYS as CONFIG_KEYS
from coxswain.errors import DOORS
from coxswain.messages.fleet import NodeView
from coxswain.model import LinkState, Node
from tests.fleet import Controller

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def cli_page() -> str:
    return (DOCS / "cli.md").read_text()


@pytest.fixture(scope="module")
def api_page() -> str:
    return (DOCS / "api.md").read_text()


def commands(group: click.Group, path: str = "cox") -> list[tuple[str, click.Command]]:
    found = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += commands(command, f"{path} {name}")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            found.append((f"{path} {name}", command))
    return found


def test_every_command_and_option_is_on_the_page(cli_page: str) -> None:
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(cox [a-z -]*[a-z])[^`]*` \| (.*) \|$", cli_page, re.MULTILINE)}
    there = commands(cli)
    assert set(rows) == {path for path, _ in there}
    for path, command in there:
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in ("config", "as_json"):
                assert option.opts[0] in rows[path] or option.opts == ["--links"], (path, option.opts)


def test_every_exit_code_is_on_the_page(cli_page: str) -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", cli_page, re.MULTILINE)}
    assert rows == {0, 143} | {door.exit_code for door in DOORS.values()}


def test_every_command_takes_json_and_a_configuration() -> None:
    """But for the daemon itself, a script for a shell, and what is JSON already."""
    options = {path: {option.name for option in command.params} for path, command in commands(cli)}
    without_json = {path for path, names in options.items() if "as_json" not in names}
    assert without_json == {"cox serve", "cox completion", "cox audit export", "cox audit prove"}
    without_config = {path for path, names in options.items() if "config" not in names}
    assert without_config <= {"cox completion", "cox audit check-proof", "cox backup verify"}


def test_what_removes_answers_to_all_its_names() -> None:
    context = click.Context(cli)
    for group in ("admins", "control-paths", "devices", "nodes", "paths", "profiles", "relays", "servers", "users"):
        found = cli.get_command(context, group)
        assert isinstance(found, click.Group)
        removing = {found.get_command(click.Context(found), name) for name in ("rm", "remove", "delete")}
        assert len(removing) == 1 and None not in removing, group
        assert len({"rm", "remove", "delete"} & set(found.list_commands(context))) == 1, "and is listed once"
        assert found.get_command(context, "nonsuch") is None


def test_every_route_is_on_the_page(api_page: str) -> None:
    assert len(ROUTES) > 20
    for route in ROUTES:
        assert f"| {route.method} `{route.path}` |" in api_page, route.path


def test_every_field_of_a_node_is_on_the_page(api_page: str, controller: Controller) -> None:
    for field in node(NodeView(Node("nod_a", "a"), LinkState.LIVE), {}):
        assert f"`{field}`" in api_page, field
    controller.client.post("/api/nodes", {"name": "documented", "control_addr": "192.0.2.1"})
    for place in ("/api/status", "/api/tree", "/api/ca", "/api/audit?limit=1", "/api/events/recent"):
        found = controller.client.get(place)
        for field in found[0] if isinstance(found, list) else found:
            assert f"`{field}`" in api_page, (place, field)


def test_every_rule_and_every_threshold_is_on_the_page_about_alerts() -> None:
    page = (DOCS / "alerts.md").read_text()
    assert set(re.findall(r"^\| `([a-z_]+)`", page, re.MULTILINE)) == set(KINDS)
    told = set(re.findall(r"analytics\.[a-z_]+", page)) | {"analytics.rules_off", "analytics.allow"}
    assert told >= {key.name for key in CONFIG_KEYS if key.name.startswith("analytics.")} - {"analytics.disabled"}
