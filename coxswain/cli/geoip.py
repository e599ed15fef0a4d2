"""``cox geoip``: the database that says where addresses are."""

from __future__ import annotations

from pathlib import Path

import click

from coxswain.cli.operations import begin, wait_option
from coxswain.cli.output import clean, client, config_option, facts, json_option, print_json

__all__ = ["geoip"]


@click.group()
def geoip() -> None:
    """Show and update the GeoIP database."""


@geoip.command("show")
@config_option
@json_option
def show(config: str | None, *, as_json: bool) -> None:
    """The database in use, and its credit."""
    found = client(config).get("/api/geoip")
    if as_json:
        print_json(found)
        return
    if not found["available"]:
        click.echo("There is none. Fetch one with: cox geoip update")
        return
    credit = found["attribution"]
    facts([("database", clean(found["source"])), ("credit", f"{credit['text']} {credit['url']}".strip())])


@geoip.command("update")
@config_option
@json_option
@click.option("--url", default="", help="An MMDB of cities, plain or gzip; default: DB-IP Lite of this month (CC BY 4.0).")
@click.option("--sha256", default="", help="SHA-256 of what is behind the URL; nothing else is taken.")
@click.option("--out", default="", metavar="FILE", help="Into this file, without the daemon; see geoip_db.")
@wait_option
def update(config: str | None, url: str, sha256: str, out: str, *, wait: bool, as_json: bool) -> None:
    """Fetch a fresh one. The old one stays until the new one has proved good; nothing has to be restarted."""
    if out:
        _into_file(Path(out), url, sha256, as_json=as_json)
        return
    body = {key: value for key, value in (("url", url), ("sha256", sha256)) if value}
    done = begin(config, "/api/geoip/update", body, wait=wait, as_json=as_json)
    if as_json:
        print_json(done)
        return
    found = client(config).get("/api/geoip")
    data = done["data"]
    click.echo()
    facts(
        [
            ("database", clean(data["source"])),
            ("from", clean(data["url"])),
            ("SHA-256", data["sha256"]),
            ("size", f"{data['size']:,} bytes"),
            ("credit", f"{found['attribution']['text']} {found['attribution']['url']}".strip()),
        ]
    )
    if not data["in_use"]:
        click.echo(
            "Another file goes before it, and stays in use: see geoip_db, and GeoLite2-City.mmdb in the state directory."
        )


def _into_file(out: Path, url: str, sha256: str, *, as_json: bool) -> None:
    """On this machine, whether or not a daemon runs (management-plane.md 2)."""
    from coxswain.fetch import shown  # noqa: PLC0415 - other commands do not pay for it
    from coxswain.geoip import credit_of  # noqa: PLC0415
    from coxswain.geoip_update import download  # noqa: PLC0415

    found, kind = download(out, url, sha256, lambda line: click.echo(clean(line), err=True))
    credit = credit_of(kind)
    if as_json:
        print_json({"file": str(out), "source": kind, "url": shown(found.url), "sha256": found.sha256, "size": found.size})
        return
    facts(
        [
            ("file", clean(str(out))),
            ("database", clean(kind)),
            ("from", clean(shown(found.url))),
            ("SHA-256", found.sha256),
            ("size", f"{found.size:,} bytes"),
            ("credit", f"{credit.text} {credit.url}" if credit else "-"),
        ]
    )
    click.echo("A daemon whose geoip_db names this file uses it within half a minute; nothing has to be restarted.")
