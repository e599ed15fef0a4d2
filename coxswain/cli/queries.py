"""Commands that only ask: status, tree, ca."""

from __future__ import annotations

from typing import Any

import click

from coxswain.cli.output import (
    Painted,
    client,
    config_option,
    duration,
    facts,
    json_option,
    paint,
    print_json,
    table,
)
from coxswain.words import counted

__all__ = ["ca", "status", "tree"]


@click.command()
@config_option
@json_option
def status(config: str | None, *, as_json: bool) -> None:
    """How the fleet and the daemon are."""
    found = client(config).get("/api/status")
    if as_json:
        print_json(found)
        return
    fleet, counts = found["fleet"], found["sessions"]
    links = ", ".join(f"{count} {paint(state)}" for state, count in fleet["by_link_state"].items())
    facts(
        [
            ("daemon", f"{found['version']}, pid {found['pid']}, up {duration(found['uptime_seconds'])}"),
            ("state", f"{found['state_dir']} ({found['store']})"),
            ("nodes", Painted(f"{fleet['nodes']}: {links}") if links else "none yet; add one with: cox nodes add"),
            ("in sync", _in_sync(fleet)),
            ("accounts", ", ".join(counted(fleet[f"{what}s"], what) for what in ("user", "device", "peer"))),
            ("sessions", f"{counts['active']} active, {counts['opened']} opened and {counts['closed']} closed since start"),
            ("audit", "; ".join(found["audit"]["findings"]) or _log(found["audit"])),
            ("services", f"not running now: {', '.join(found['down'])}" if found["down"] else "all running"),
            ("restarts", f"{found['restarts']} of services (links apart: cox tree)"),
        ]
    )


def _in_sync(fleet: dict[str, Any]) -> str:
    """And what is with the others."""
    others = [
        f"{fleet[key]} {words}"
        for key, words in (("troubled", "in trouble (cox nodes list)"), ("coming_up", "coming up"))
        if fleet[key]
    ]
    return ", ".join([f"{fleet['in_sync']} of {fleet['nodes']}", *others])


def _log(audit: dict[str, Any]) -> str:
    return f"{counted(audit['size'], 'record')}, head {audit['row_hash'][:16] or '-'}"


@click.command()
@config_option
@json_option
@click.option("--links/--no-links", default=False, help="Show each node's link, too.")
def tree(config: str | None, *, as_json: bool, links: bool) -> None:
    """The service tree, live: state, incarnation, restarts, uptime, mailbox depth, last failure."""
    root = client(config).get("/api/tree")
    if as_json:
        print_json(root)
        return
    rows: list[list[Any]] = []

    def walk(node: dict[str, Any], lead: str, branch: str) -> None:
        busy = f"{node['busy_s']:.1f} s in {node['busy_with']}" if node["busy_s"] >= 0.1 else ""
        failure = node["last_failure"].splitlines()[0][:70] if node["last_failure"] else ""
        rows.append(
            [
                lead + branch + node["id"],
                node["state"],
                node["incarnation"],
                node["restarts"],
                duration(node["uptime_s"]),
                node["mailbox"],
                busy,
                failure,
            ]
        )
        children = node["children"]
        inner = lead + {"": "", "├── ": "│   ", "└── ": "    "}[branch]
        if node["id"] == "node_links" and not links:
            by_state: dict[str, int] = {}
            for child in children:
                by_state[child["state"]] = by_state.get(child["state"], 0) + 1
            text = ", ".join(f"{count} {state}" for state, count in sorted(by_state.items()))
            if text:
                restarts = sum(child["restarts"] for child in children)
                rows.append([f"{inner}└── ({text})", "", "", restarts, "", sum(c["mailbox"] for c in children), "", ""])
            return
        for position, child in enumerate(children):
            walk(child, inner, "└── " if position == len(children) - 1 else "├── ")

    walk(root, "", "")
    table(["ACTOR", "STATE", "INCARNATION", "RESTARTS", "UP", "MAILBOX", "BUSY", "LAST FAILURE"], rows, styles={1: paint})


@click.group()
def ca() -> None:
    """The certificate authority."""


@ca.command("show")
@config_option
@json_option
def show(config: str | None, *, as_json: bool) -> None:
    """Authorities and leaves, with what is due."""
    asking = client(config)
    found = asking.get("/api/ca")
    if as_json:
        print_json(found)
        return
    click.echo(f"keys are sealed with a key from: {found['key_source']}\n")
    table(
        ["AUTHORITY", "STATE", "SUBJECT", "VALID UNTIL", "FINGERPRINT (SHA-256)"],
        [[a["role"], a["state"], a["subject"], a["not_after"][:10], a["fingerprint"]] for a in found["authorities"]],
    )
    names = {n["id"]: n["name"] for n in asking.get("/api/nodes")}
    click.echo()
    table(
        ["LEAF OF", "SERIAL", "VALID UNTIL", "STATE"],
        [[names.get(x["holder"], x["holder"]), x["serial"], x["not_after"][:10], _leaf_state(x)] for x in found["leaves"]],
    )


def _leaf_state(leaf: dict[str, Any]) -> str:
    if leaf["revoked_at"]:
        return f"revoked {leaf['revoked_at'][:10]}"
    return "renewal due: enrol again" if leaf["renewal_due"] and leaf["holder"] != "controller" else "valid"
