"""``cox users``: who may use the VPN."""

from __future__ import annotations

from typing import Any

import click

from coxswain.cli.accounts import changes, every, place, say_arrival, user_key_of, wait_option, with_query
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

__all__ = ["users"]


@click.group(cls=Group)
def users() -> None:
    """Add, show, edit, suspend, resume and remove users."""


@users.command("add")
@config_option
@json_option
@click.argument("name")
@click.option("--email", default="", help="Unique among all users.")
@click.option("--phone", default="", help="Unique among all users.")
def add(config: str | None, name: str, email: str, phone: str, *, as_json: bool) -> None:
    """Add a user."""
    user = client(config).post("/api/users", {"name": name, "email": email, "phone": phone, "unique": True})
    if as_json:
        print_json(user)
        return
    _print(user)
    click.echo(f"\nNext: cox devices add {user['id']} NAME")


@users.command("list")
@config_option
@json_option
def list_(config: str | None, *, as_json: bool) -> None:
    """All users."""
    found = list(every(client(config), "/api/users"))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("There are no users yet. Add one with: cox users add NAME")
        return
    rows = [[u["id"], u["name"], u["email"], u["phone"], u["status"], ago(u["created_at"])] for u in found]
    table(["ID", "NAME", "EMAIL", "PHONE", "STATUS", "AGE"], rows, styles={4: paint})


@users.command("show")
@config_option
@json_option
@click.argument("user")
def show(config: str | None, user: str, *, as_json: bool) -> None:
    """One user with their devices; USER is an id, an e-mail address or a name."""
    api = client(config)
    user = user_key_of(api, user)
    found = api.get(place("users", user))
    devices = list(every(api, place("users", user, "devices")))
    if as_json:
        print_json(found | {"devices": devices})
        return
    _print(found)
    if devices:
        click.echo()
        rows = [[d["id"], d["name"], d["platform"], d["status"], ago(d["created_at"])] for d in devices]
        table(["DEVICE", "NAME", "PLATFORM", "STATUS", "AGE"], rows, styles={3: paint})


@users.command("edit")
@config_option
@json_option
@click.argument("user")
@click.option("--name")
@click.option("--email", help="Empty takes it away.")
@click.option("--phone", help="Empty takes it away.")
@click.option("--status", type=click.Choice(["active", "suspended", "disabled"]))
def edit(config: str | None, user: str, *, as_json: bool, **given: str | None) -> None:
    """Change what is given of a user."""
    body = changes(given)
    api = client(config)
    user = user_key_of(api, user)
    changed = api.call("PATCH", place("users", user), body | {"version": api.get(place("users", user))["version"]})
    if as_json:
        print_json(changed)
        return
    _print(changed)
    say_arrival(api, changed)


@users.command("suspend")
@config_option
@json_option
@wait_option
@click.argument("user")
def suspend(config: str | None, user: str, wait: int, *, as_json: bool) -> None:
    """Take all devices of a user from all nodes; their keys are kept."""
    _set_status(config, user, "suspend", wait, as_json=as_json)


@users.command("resume")
@config_option
@json_option
@wait_option
@click.argument("user")
def resume(config: str | None, user: str, wait: int, *, as_json: bool) -> None:
    """Bring them back, with the keys they had."""
    _set_status(config, user, "resume", wait, as_json=as_json)


@users.command("remove")
@config_option
@json_option
@wait_option
@yes_option
@click.argument("user")
def remove(config: str | None, user: str, wait: int, *, yes: bool, as_json: bool) -> None:
    """Remove a user with all devices and keys, from all nodes."""
    api = client(config)
    found = api.get(place("users", user_key_of(api, user)))
    if not yes:
        confirm(f"Remove {found['name']} ({found['id']}) with all devices?")
    api.call("DELETE", with_query(place("users", found["id"]), version=found["version"], wait=wait))
    print_json({"removed": found["id"]}) if as_json else click.echo(clean(f"{found['name']} is removed"))


def _set_status(config: str | None, user: str, action: str, wait: int, *, as_json: bool) -> None:
    api = client(config)
    changed = api.post(with_query(place("users", user_key_of(api, user), action), wait=wait))
    if as_json:
        print_json(changed)
        return
    click.echo(clean(f"{changed['name']} is {changed['status']}"))
    say_arrival(api, changed)


def _print(user: dict[str, Any]) -> None:
    facts(
        [
            ("id", user["id"]),
            ("name", user["name"]),
            ("email", user["email"]),
            ("phone", user["phone"]),
            ("status", paint(user["status"])),
        ]
    )
