"""``cox admins``: who may log in to the dashboard."""

from __future__ import annotations

import sys
from typing import Any

import click

from coxswain.cli.accounts import every, place
from coxswain.cli.output import (
    Group,
    ago,
    clean,
    client,
    config_option,
    confirm,
    facts,
    json_option,
    paint,
    print_json,
    table,
    yes_option,
)
from coxswain.errors import InvalidInput

__all__ = ["admins"]

_password_options = (
    click.option("--stdin", "from_stdin", is_flag=True, help="Read the password from the first line of stdin."),
    click.option("--generate", is_flag=True, help="Make one, and show it this once."),
)


def password_options(function: Any) -> Any:
    """How a command gets a new password; never from its arguments, which every user of the machine can see."""
    for option in reversed(_password_options):
        function = option(function)
    return function


@click.group(cls=Group)
def admins() -> None:
    """Add, list, disable and remove admins; their passwords and second factors."""


@admins.command("list")
@config_option
@json_option
def list_(config: str | None, *, as_json: bool) -> None:
    """All admins."""
    found = list(every(client(config), "/api/admins"))
    if as_json:
        print_json(found)
        return
    rows = [
        [
            a["email"],
            a["status"],
            "yes" if a["can_log_in"] else "no",
            "yes" if a["totp"] else "no",
            "yes" if a["built_in"] else "no",
            ago(a["created_at"]),
            a["id"],
        ]
        for a in found
    ]
    table(["NAME", "STATUS", "CAN LOG IN", "2ND FACTOR", "BUILT IN", "AGE", "ID"], rows, styles={1: paint})


@admins.command("add")
@config_option
@json_option
@click.argument("email")
@password_options
def add(config: str | None, email: str, *, from_stdin: bool, generate: bool, as_json: bool) -> None:
    """Add an admin; EMAIL, or a plain name, is what they log in with."""
    password = _new_password(from_stdin=from_stdin, generate=generate)
    made = client(config).post("/api/admins", {"email": email, "password": password})
    _tell(made["email"], "added", password if generate else "", made, as_json=as_json)


@admins.command("password")
@config_option
@json_option
@click.argument("admin")
@password_options
def password(config: str | None, admin: str, *, from_stdin: bool, generate: bool, as_json: bool) -> None:
    """Give an admin a new password. Their sessions end."""
    new = _new_password(from_stdin=from_stdin, generate=generate)
    client(config).post(place("admins", admin, "password"), {"new_password": new})
    _tell(admin, "the password is changed, and their sessions have ended", new if generate else "", {}, as_json=as_json)


@admins.command("disable")
@config_option
@json_option
@click.argument("admin")
def disable(config: str | None, admin: str, *, as_json: bool) -> None:
    """Let an admin not log in any more; their sessions end."""
    _set_status(config, admin, "disabled", as_json=as_json)


@admins.command("enable")
@config_option
@json_option
@click.argument("admin")
def enable(config: str | None, admin: str, *, as_json: bool) -> None:
    """Let an admin log in again."""
    _set_status(config, admin, "active", as_json=as_json)


@admins.command("rm")
@config_option
@json_option
@click.argument("admin")
@yes_option
def remove(config: str | None, admin: str, *, yes: bool, as_json: bool) -> None:
    """Remove an admin. Not the built-in one, and not the last that can log in."""
    api = client(config)
    found = api.get(place("admins", admin))
    if not yes:
        confirm(f"Remove the admin {found['email']}?")
    api.call("DELETE", f"{place('admins', found['id'])}?version={found['version']}")
    _tell(found["email"], "removed", "", found, as_json=as_json)


@admins.command("totp")
@config_option
@json_option
@click.argument("admin")
@click.option("--remove", is_flag=True, help="Take the second factor away.")
def totp(config: str | None, admin: str, *, remove: bool, as_json: bool) -> None:
    """Give an admin a second factor: shows a secret for an authenticator, and asks for the code that it shows."""
    api = client(config)
    if remove:
        api.post(place("admins", admin, "totp/remove"))
        _tell(admin, "the second factor is gone", "", {}, as_json=as_json)
        return
    made = api.post(place("admins", admin, "totp"))
    if not as_json:
        facts([("secret", made["secret"]), ("url", made["url"])])
    code = click.prompt("\nThe code that the authenticator shows now", err=as_json)
    done = api.post(place("admins", admin, "totp/confirm"), {"code": code})
    if as_json:
        print_json(made | done)
        return
    click.echo("\nThe second factor counts from now on. Each of these gets in once without it; keep them apart from it:\n")
    for recovery in done["recovery_codes"]:
        click.echo(f"  {recovery}")


def _set_status(config: str | None, admin: str, status: str, *, as_json: bool) -> None:
    api = client(config)
    found = api.get(place("admins", admin))
    changed = api.call("PATCH", place("admins", found["id"]), {"version": found["version"], "status": status})
    _tell(changed["email"], f"is {changed['status']} now", "", changed, as_json=as_json)


def _new_password(*, from_stdin: bool, generate: bool) -> str:
    if from_stdin and generate:
        raise InvalidInput("password: --stdin and --generate exclude each other", remedy="Say one of them, or neither.")
    if generate:
        import base64  # noqa: PLC0415
        import secrets  # noqa: PLC0415 - neither is needed to list admins

        return base64.b32encode(secrets.token_bytes(15)).decode("ascii").lower()
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidInput("password: there is nobody to ask", remedy="Say --stdin and pipe it in, or --generate.")
    found: str = click.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
    return found


def _tell(who: str, what: str, secret: str, value: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(value | ({"password": secret} if secret else {}))
        return
    click.echo(f"{clean(who)}: {what}")
    if secret:
        click.echo(f"password: {secret}\n\nKeep it: it is not shown again.")
