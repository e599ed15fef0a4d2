"""``cox enroll`` and ``cox invites``: join links, by which users bring devices into the fleet."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import click

from coxswain.cli.accounts import device_of, every, place, user_key_of
from coxswain.cli.files import check_free, file_stem, write_private
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

__all__ = ["enroll", "invites"]


@click.command("enroll")
@config_option
@json_option
@click.argument("user")
@click.option(
    "--relay", default="", metavar="HOST:PORT", help="Where clients reach a relay; default: relay.public_endpoint."
)
@click.option("--out", metavar="FILE", help="Where to write the QR code, 0600; default: USER-enroll.png, here.")
@click.option(
    "--ttl", type=click.IntRange(60, 604_800), metavar="SECONDS", help="For how long it is good; default: an hour."
)
@click.option("--device", metavar="DEVICE", help="Enrol this device of theirs (id or name) anew, with the profiles it has.")
def enroll(config: str | None, user: str, *, as_json: bool, **given: Any) -> None:
    """Make a join link for a user (id, e-mail address or name), and a picture of it. Whoever has it first is that user."""
    path = Path(given["out"] or f"{file_stem(user)}-enroll.png")
    if not as_json:
        check_free(path)
    api = client(config)
    key = user_key_of(api, user)
    device = device_of(api, given["device"], key)["id"] if given["device"] else given["device"]
    body = {"ttl_seconds": given["ttl"], "device_id": device, "relay": given["relay"]}
    invite = api.post(place("users", key, "invite"), {k: v for k, v in body.items() if v is not None})
    if as_json:
        print_json(invite)
        return
    write_private(path, base64.b64decode(invite["qr_png_base64"]))
    facts([("invite", invite["ticket_id"]), ("expires", invite["expires_at"]), ("QR code", f"{path} (mode 0600)")])
    click.echo(f"\n{clean(invite['url'])}\n")
    click.echo("It is good once. Give it to the user on a way that nobody else reads.")


@click.group(cls=Group)
def invites() -> None:
    """List and revoke join links; cox enroll makes them."""


@invites.command("list")
@config_option
@json_option
@click.argument("user")
def list_(config: str | None, user: str, *, as_json: bool) -> None:
    """The invites of a user (id, e-mail address or name), newest first."""
    api = client(config)
    found = list(every(api, place("users", user_key_of(api, user), "invites")))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo(clean(f"There are no invites of {user}. Make one with: cox enroll {user}"))
        return
    rows = [[i["id"], _state(i), ago(i["created_at"]), i["expires_at"], i["used_by_device_id"] or ""] for i in found]
    table(["ID", "STATE", "AGE", "EXPIRES", "DEVICE"], rows, styles={1: paint})


@invites.command("revoke")
@config_option
@json_option
@yes_option
@click.argument("invite")
def revoke(config: str | None, invite: str, *, yes: bool, as_json: bool) -> None:
    """Make a join link useless. A device that has joined with it stays; see cox devices revoke."""
    if not yes:
        confirm(f"Revoke the invite {invite}?")
    client(config).call("DELETE", place("invites", invite))
    print_json({"revoked": invite}) if as_json else click.echo(clean(f"{invite} is revoked"))


def _state(invite: dict[str, str | None]) -> str:
    if invite["revoked_at"]:
        return "revoked"
    if invite["used_at"]:
        return "used"
    return "expired" if _over(invite["expires_at"] or "") else "open"


def _over(stamp: str) -> bool:
    import datetime as dt  # noqa: PLC0415

    return dt.datetime.fromisoformat(stamp) <= dt.datetime.now(dt.UTC)
