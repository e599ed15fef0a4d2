"""Tokens and admins from the command line."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actors.main import cli
from coxswain.access import totp
from tests.fleet import Controller


@pytest.fixture
def cox(controller: Controller) -> Callable[..., Result]:
    config = str(controller.home.parent / "cox.yaml")

    def run(*arguments: str, typed: str = "") -> Result:
        group, command, *rest = arguments
        return CliRunner().invoke(cli, [group, command, "--config", config, *rest], input=typed)

    return run


def asked(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_token_is_shown_once_and_revoked(cox: Callable[..., Result]) -> None:
    made = asked(cox("tokens", "create", "grafana", "--scope", "monitor", "--expires", "1h", "--json"))
    assert made["secret"].startswith("cox_mon_")
    shown = cox("tokens", "create", "told")
    assert "cox_ro_" in shown.output and "not shown again" in shown.output
    listed = cox("tokens", "list")
    assert "grafana" in listed.output and made["secret"] not in listed.output and made["prefix"] in listed.output
    assert cox("tokens", "revoke", made["id"]).output == f"{made['id']}: revoked\n"
    assert cox("tokens", "revoke", made["id"]).exit_code == 0, "once more is no error"
    found = {t["id"]: t for t in asked(cox("tokens", "list", "--json"))}
    assert "revoked_at" in found[made["id"]]
    missing = cox("tokens", "revoke", "tok_nope")
    assert missing.exit_code == 4 and "there is no token 'tok_nope'" in missing.output
    assert cox("tokens", "create", "x", "--expires", "soon").exit_code == 2
    assert re.search(r"^expires +never$", cox("tokens", "create", "ever", "--expires", "0h").stdout, re.MULTILINE)
    days = asked(cox("tokens", "create", "month", "--expires", "30d", "--json"))
    assert dt.datetime.fromisoformat(days["expires_at"]) - dt.datetime.fromisoformat(days["created_at"]) == dt.timedelta(30)


def test_admins_come_and_go(cox: Callable[..., Result]) -> None:
    made = asked(cox("admins", "add", "eva@example.net", "--generate", "--json"))
    assert len(made["password"]) == 24
    again = cox("admins", "add", "Eva@example.net", "--generate")
    assert again.exit_code == 5 and "is taken" in again.output
    assert "eva@example.net" in cox("admins", "list").output
    assert cox("admins", "password", "admin", "--generate").exit_code == 0
    assert cox("admins", "disable", "eva@example.net").output == "eva@example.net: is disabled now\n"
    assert cox("admins", "enable", "eva@example.net").output == "eva@example.net: is active now\n"
    assert cox("admins", "password", "eva@example.net", "--stdin", typed="short\n").exit_code == 2
    changed = cox("admins", "password", "eva@example.net", "--stdin", typed="long enough now\n")
    assert changed.exit_code == 0 and "long enough" not in changed.output
    assert cox("admins", "rm", "eva@example.net").exit_code == 2, "there is nobody to ask"
    assert cox("admins", "rm", "eva@example.net", "--yes").output == "eva@example.net: removed\n"
    assert cox("admins", "rm", "eva@example.net", "--yes").exit_code == 4
    built_in = cox("admins", "rm", "admin", "--yes")
    assert built_in.exit_code == 6 and "cannot be removed" in built_in.output


def test_a_second_factor_from_the_terminal(cox: Callable[..., Result], controller: Controller) -> None:
    asked(cox("admins", "add", "otto", "--generate", "--json"))
    wrong = cox("admins", "totp", "otto", typed="12345\n")
    assert wrong.exit_code == 2 and "code: this is not the code" in wrong.output
    begun = controller.client.post("/api/admins/otto/totp")
    code = totp.code_at(base64.b32decode(begun["secret"]), int(time.time()) // 30)
    codes = controller.client.post("/api/admins/otto/totp/confirm", {"code": code})["recovery_codes"]
    assert len(set(codes)) == 10
    taken = cox("admins", "totp", "otto")
    assert taken.exit_code == 5 and "has a second factor already" in taken.output
    assert "yes" in next(line for line in cox("admins", "list").output.splitlines() if line.startswith("otto"))
    assert cox("admins", "totp", "otto", "--remove").exit_code == 0
    assert cox("admins", "totp", "otto", "--remove").exit_code == 4
