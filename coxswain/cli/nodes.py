"""``cox nodes``: the inventory of nodes."""

from __future__ import annotations

import datetime as dt
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from coxswain.cli.client import Client
from coxswain.cli.endpoints import endpoints, ports_of
from coxswain.cli.machines import Login, login_options, own_option, reached
from coxswain.cli.names import Names
from coxswain.cli.node_agents import OF_AGENTS
from coxswain.cli.operations import begin, check_binary, source_body, source_options, wait_option
from coxswain.cli.output import (
    Group,
    Painted,
    ago,
    clean,
    client,
    config_option,
    confirm,
    duration,
    facts,
    json_option,
    node_path,
    paint,
    print_json,
    table,
    yes_option,
)
from coxswain.errors import AlreadyExists, InvalidInput
from coxswain.ids import ID_PATTERN

__all__ = ["nodes"]

_MAX_CSR_BYTES = 64 * 1024
_POLICY = ("forwarding", "masquerade", "isolation")
_FILES = ("node.crt", "ca.crt")


@click.group(cls=Group)
def nodes() -> None:
    """Add, enrol, show, plan, push, disable and remove nodes."""


for _command in (endpoints, *OF_AGENTS):
    nodes.add_command(_command)


@nodes.command("add")
@config_option
@json_option
@click.argument("host", default="")
@click.option("--server", default="", metavar="SERVER", help="Onboard over SSH on this machine (cox servers list).")
@click.option("--addr", metavar="HOST[:PORT]", help="No SSH: where the agent listens; HOST is the node's name.")
@click.option("--name", default="", help="Its name; default: made from region and id.")
@click.option("--region", default="", help="Free text, e.g. fra; default: that of the machine.")
@click.option("--public-ip", default="", help="Where clients connect, if not at HOST (with --addr).")
@click.option("--via", default="", metavar="RELAYS", help="Names or ids of relays for this SSH connection, comma-separated.")
@login_options
@source_options
@own_option
@wait_option
def add(  # noqa: PLR0917
    config: str | None, host: str, server: str, addr: str | None, name: str, region: str, public_ip: str, via: str,
    user: str, port: int, host_key: str, binary: str, url: str, sha256: str, *, accept_new_host_key: bool, yes: bool,
    wait: bool, as_json: bool,
) -> None:  # fmt: skip
    """Onboard a node on a machine over SSH; with --addr, only take one into the inventory."""
    login = Login(user, port, host_key, accept_new_host_key)
    if addr == "":  # as of a variable that is not set: another way to take a node in would be taken
        raise InvalidInput("addr: is empty", remedy="Say where the agent listens, or leave it out.")
    if addr and login.given:
        raise InvalidInput("addr: there is no SSH with it, so no --user, --port, --host-key")
    _check_name(name or (host if addr else ""))
    if addr:
        _add_by_hand(config, name or host, addr, region, public_ip, as_json=as_json)
        return
    if public_ip:
        raise InvalidInput(
            "public-ip: goes with --addr, where the node's agent is reached",
            remedy=f"Say where that is: cox nodes add {host or name} --addr {public_ip} --public-ip {public_ip}",
        )
    key = reached(
        config,
        host,
        server,
        login,
        region=region,
        via=via,
        yes=yes,
        as_json=as_json,
        check_new=lambda asking: _check_new(asking, name, host, binary),
    )
    body: dict[str, Any] = {"role": "node", "name": name, "region": region} | source_body(binary, url, sha256)
    if via:
        body["route"] = [relay.strip() for relay in via.split(",")]
    done = begin(config, f"/api/servers/{quote(key, safe='')}/deploy", body, wait=wait, as_json=as_json)
    asking = client(config)
    found = asking.get(node_path(done["data"]["node_id"]))
    if as_json:
        print_json(found)
    else:
        click.echo()
        _print_node(asking, found)


def _check_name(name: str) -> None:
    """Of a new node. The daemon takes more, of callers that know its nodes by their ids; here a name has to be one that
    commands can be given. Raises ``InvalidInput``.
    """
    wrong = "would be several nodes where nodes are listed" if "," in name else ""
    wrong = "would be an option" if name.strip().startswith("-") else wrong
    wrong = "would be an id" if ID_PATTERN.match(name.strip()) else wrong
    if wrong:
        raise InvalidInput(
            f"name: {name[:80]!r} {wrong}", remedy="Choose one without a comma or leading dash, that looks like no id."
        )


def _check_new(asking: Client, name: str, host: str, binary: str) -> None:
    """Before a machine is taken in for a node that would be refused then; the daemon looks again."""
    from coxswain.inventory import check_name, is_same_addr, parse_control_addr  # noqa: PLC0415

    check_binary(asking, binary)
    name, addr = name and check_name(name), parse_control_addr(host)
    for other in asking.get("/api/nodes"):
        if name and other["name"] == name:
            raise AlreadyExists(f"name: a node named {name!r} exists already; choose another name")
        if is_same_addr(other["control_addr"], addr):
            raise AlreadyExists(
                f"host: {host} is where node {other['name']} is reached already",
                remedy=f"If it is that one, take the machine in, and say that it is there: cox servers add {host}, "
                f"cox nodes edit {other['name']} --server {host}",
            )


def _add_by_hand(config: str | None, name: str, addr: str, region: str, public_ip: str, *, as_json: bool) -> None:
    body = {"name": name, "control_addr": addr, "region": region, "public_ip": public_ip, "unique": True}
    node = client(config).post("/api/nodes", body)
    if as_json:
        print_json(node)
        return
    facts([("id", node["id"]), ("name", node["name"]), ("region", node["region"]), ("address", node["control_addr"])])
    click.echo(f"\nNext, on the host: cox-node gen-csr > {name}.csr")
    click.echo(f"Then here:         cox nodes enroll {name} --csr {name}.csr")
    if not node["public_ip"]:
        click.echo(f"And where clients reach it, which --public-ip would have said: cox nodes endpoints {name} IP")


@nodes.command("enroll")
@config_option
@json_option
@click.argument("node")
@click.option("--csr", "csr_file", required=True, metavar="FILE", help="The host's certificate request; - reads stdin.")
@click.option("--out", metavar="DIR", default=".", show_default=True, help="Where node.crt and ca.crt are written.")
def enroll(config: str | None, node: str, csr_file: str, out: str, *, as_json: bool) -> None:
    """Sign a host's certificate request. Writes node.crt and ca.crt; with --json, prints them instead."""
    directory = Path(out)
    request = _read_csr(csr_file)
    if not as_json:  # before a certificate is issued that could not be written down
        _check_writable(directory)
    issued = client(config).post(node_path(node, "enroll"), {"csr": request})
    if as_json:
        print_json(issued)
        return
    directory.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        _write(directory / name, issued[name.replace(".", "_")])
    facts(
        [
            ("serial", issued["serial"]),
            ("valid until", issued["not_after"][:10]),
            ("node.crt", directory / "node.crt"),
            ("ca.crt", directory / "ca.crt"),
        ]
    )
    if issued["ignored"]:
        asked = clean("; ".join(issued["ignored"]))
        click.echo(f"\nThe controller chooses names itself; what the request asked for does not count: {asked}")
    click.echo("\nCopy both files to /etc/node/ on the host, and start the agent there (or restart it).")


def _check_writable(directory: Path) -> None:
    """Leaves nothing behind: the request may yet be refused."""
    new = [d for d in (directory, *directory.parents) if not d.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".cox-write-test"
        probe.touch()
        probe.unlink()
        for made in new:
            made.rmdir()
    except OSError as error:
        raise InvalidInput(f"out: {directory} cannot be written to: {error.strerror}") from None


def _read_csr(name: str) -> str:
    try:
        if name == "-":
            raw: bytes = sys.stdin.buffer.read(_MAX_CSR_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(_MAX_CSR_BYTES + 1)
        if len(raw) > _MAX_CSR_BYTES:
            raise InvalidInput(f"csr: {name} is larger than {_MAX_CSR_BYTES} bytes; that is no certificate request")
        return raw.decode("ascii")
    except OSError as error:
        raise InvalidInput(f"csr: {name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"csr: {name} is no PEM file", remedy="Make one on the host with: cox-node gen-csr") from None


def _write(path: Path, content: str) -> None:
    """All or nothing."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(content, encoding="ascii")
    os.replace(temporary, path)  # noqa: PTH105


@nodes.command("list")
@config_option
@json_option
def list_(config: str | None, *, as_json: bool) -> None:
    """All nodes."""
    found = client(config).get("/api/nodes")
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("There are no nodes yet. Add one with: cox nodes add NAME --addr HOST")
        return
    rows = [
        [
            n["id"],
            n["name"],
            n["region"],
            n["status"],
            n["ssh_host"],
            n["agent_version"],
            n["link_state"],
            f"{n['applied_revision']}/{n['config_revision']}" + ("" if n["in_sync"] else " *"),
            f"{n['peers_online']}/{n['peers_configured']}",
            n["control_addr"],
            n["link_reason"][:60],
        ]
        for n in found
    ]
    table(
        # The first ones as scripts know them (management-plane.md 2).
        ["ID", "NAME", "REGION", "STATUS", "SSH HOST", "AGENT", "LINK", "REVISION", "ONLINE", "ADDRESS", "REASON"],
        rows,
        styles={3: paint, 6: paint},
    )


@nodes.command("show")
@config_option
@json_option
@click.argument("node")
def show(config: str | None, node: str, *, as_json: bool) -> None:
    """One node, as stored and as its link sees it."""
    _show(config, node, as_json=as_json)


@nodes.command("status")
@config_option
@json_option
@click.argument("node")
def status(config: str | None, node: str, *, as_json: bool) -> None:
    """Look at one node now, and say how it is."""
    asking = client(config)
    found = asking.get(node_path(node, "status"))
    if as_json:
        print_json(found)
        return
    _print_node(asking, found)
    click.echo()
    _print_plan(found["plan"])


def _show(config: str | None, node: str, *, as_json: bool) -> None:
    asking = client(config)
    found = asking.get(node_path(node))
    if as_json:
        print_json(found)
    else:
        _print_node(asking, found)


def _machine(asking: Client, n: dict[str, Any]) -> str:
    """Where the agent is installed, by name and id; of a node that was set up by hand nobody knows."""
    names = Names(asking)
    names.learn([n["server_id"]])
    name = names.of(n["server_id"])
    return name if name == n["server_id"] else f"{name} {n['server_id']}"


def _up(n: dict[str, Any]) -> str:
    """For how long the agent runs. What it said at the last look is reckoned on from there; without a link it is old."""
    if not n["last_seen"]:
        return f"up {duration(n['uptime_seconds'])} at the last look"
    since = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(n["last_seen"])).total_seconds()
    return f"up {duration(n['uptime_seconds'] + max(0.0, since))}"


def _print_node(asking: Client, n: dict[str, Any]) -> None:
    policy = [word for word in _POLICY if n[word]]
    facts(
        [
            ("id", n["id"]),
            ("name", n["name"]),
            ("region", n["region"]),
            ("address", n["control_addr"]),
            ("machine", _machine(asking, n)),
            ("status", paint(n["status"])),
            ("link", Painted(paint(n["link_state"]) + (f" for {ago(n['link_since'])}" if n["link_since"] else ""))),
            ("reason", n["link_reason"]),
            ("revision", f"{n['applied_revision']} applied, {n['config_revision']} intended"),
            ("in sync", n["in_sync"]),
            ("peers", f"{n['peers_online']} online of {n['peers_configured']}"),
            ("policy", ", ".join(policy) or "no forwarding"),
            ("agent", f"{n['agent_version']}, {_up(n)}" if n["agent_version"] else ""),
            ("AmneziaWG key", n["wg_public_key"]),
            ("REALITY key", n["xray_public_key"]),
            ("decoy", n["decoy_site"] or "as reality.decoy_site"),
            ("clients' ports", ports_of(n)),
            ("clients' IPv6", "yes" if n["tunnel_ipv6"] else "no"),
            ("certificate", "valid" if n["enrolled"] else "none: enrol it with cox nodes enroll"),
            ("version", n["version"]),
        ]
    )
    for finding in n["findings"]:
        click.echo(f"! {clean(finding)}")


@nodes.command("plan")
@config_option
@json_option
@click.argument("node")
def plan(config: str | None, node: str, *, as_json: bool) -> None:
    """What a reconcile would change on a node. Changes nothing."""
    found = client(config).get(node_path(node, "plan"))
    if as_json:
        print_json(found)
    else:
        _print_plan(found)


def _print_plan(found: dict[str, Any]) -> None:
    if not found["steps"]:
        click.echo(f"nothing to do: the node is at revision {found['applied_revision']}, as intended")
    for number, step in enumerate(found["steps"], 1):
        click.echo(f"{number}. {clean(step)}")
    for finding in found["findings"]:
        click.echo(f"! {clean(finding)}")


@nodes.command("policy")
@config_option
@json_option
@click.argument("node")
@click.option("--forwarding/--no-forwarding", default=None, help="What they would be with it, or without.")
@click.option("--masquerade/--no-masquerade", default=None, help="The same.")
@click.option("--isolation/--no-isolation", default=None, help="The same.")
def policy(config: str | None, node: str, *, as_json: bool, **given: bool | None) -> None:
    """The exact rules of a node's network policy, or what they would be. Changes nothing.

    %i stands for the clients' interface, %e for that of the default route.
    """
    asking = client(config)
    wanted = {name: value for name, value in given.items() if value is not None}
    rules = asking.post("/api/network-policy/preview", {"node": node} | wanted)
    if as_json:
        print_json(rules)
        return
    found = asking.get(node_path(node))
    words = [word for word in _POLICY if wanted.get(word, found[word])]
    click.echo(f"{clean(found['name'])}: {', '.join(words) or 'no forwarding'}")
    for note in rules.get("notes", []):
        click.echo(f"! {clean(note)}")
    if not wanted and not found["in_sync"]:
        click.echo("! it has not acknowledged everything yet: cox nodes plan " + clean(found["name"]))
    for title, key in (("before", "pre_up"), ("rules", "post_up"), ("taken away by", "post_down")):
        if rules[key]:
            click.echo(f"\n{title}:")
            for line in rules[key]:
                click.echo(f"  {clean(line)}")


@nodes.command("push")
@config_option
@json_option
@click.argument("node")
def push(config: str | None, node: str, *, as_json: bool) -> None:
    """Push everything to a node now, needed or not."""
    outcome = client(config).post(node_path(node, "push"))
    if as_json:
        print_json(outcome)
        return
    facts(
        [
            ("peers pushed", outcome["AmneziaPeers"]),
            ("revision", f"{outcome['PushedRevision']} (applied {outcome['AppliedRevision']})"),
            ("reloaded", outcome["Reloaded"]),
            ("policy applied", outcome["PolicyApplied"]),
            ("inner links", outcome["LinksConfigured"]),
            ("XRay clients", "skipped" if outcome["XRaySkipped"] else outcome["XRayPeers"]),
        ]
    )


@nodes.command("push-policy")
@config_option
@json_option
@click.argument("node")
def push_policy(config: str | None, node: str, *, as_json: bool) -> None:
    """Put a node's network policy in force again, with its transits."""
    outcome = client(config).post(node_path(node, "push-policy"))
    if as_json:
        print_json(outcome)
        return
    facts([(name, outcome[name]) for name in ("forwarding", "masquerade", "isolation", "transits", "applied")])


@nodes.command("edit")
@config_option
@json_option
@click.argument("node")
@click.option("--name", "new_name", help="A new name.")
@click.option("--region", help="A new region.")
@click.option("--addr", metavar="HOST[:PORT]", help="A new address; its certificate stays good.")
@click.option("--server", metavar="SERVER", help="The machine that it is on, if it was added with --addr.")
@click.option("--decoy", metavar="HOST[:PORT]", help='Whom REALITY pretends to be there; "": as the configuration says.')
@click.option("--forwarding/--no-forwarding", default=None)
@click.option("--masquerade/--no-masquerade", default=None)
@click.option("--isolation/--no-isolation", default=None)
def edit(
    config: str | None,
    node: str,
    *,
    new_name: str | None,
    region: str | None,
    addr: str | None,
    server: str | None,
    decoy: str | None,
    forwarding: bool | None,
    masquerade: bool | None,
    isolation: bool | None,
    as_json: bool,
) -> None:
    """Change a node's name, region, address, decoy or network policy; say on which machine it is."""
    if all(given is None for given in (new_name, region, addr, server, decoy, forwarding, masquerade, isolation)):
        raise InvalidInput(
            "nothing to change: one of --name, --region, --addr, --server, --decoy, --forwarding, --masquerade, --isolation "
            "is needed"
        )
    if server == "":
        raise InvalidInput("server: is empty", remedy="Say which machine is meant; see: cox servers list")
    if new_name != node:
        _check_name(new_name or "")
    asking = client(config)
    path = node_path(node)
    found = asking.get(path)
    body: dict[str, Any] = {"version": found["version"], "name": new_name, "region": region, "control_addr": addr}
    body |= {"server_id": server, "decoy_site": decoy, "unique": None if addr is None else True}
    body |= {"forwarding": forwarding, "masquerade": masquerade, "isolation": isolation}
    changed = asking.call("PATCH", path, {key: value for key, value in body.items() if value is not None})
    if as_json:
        print_json(changed)
    else:
        click.echo(f"{changed['name']}: changed (version {changed['version']})")
        if changed["decoy_site"] != found.get("decoy_site"):
            click.echo("Its XRay sessions end; for new ones devices fetch their profiles, or get new files.")


def _switch(config: str | None, node: str, action: str, *, as_json: bool) -> None:
    found = client(config).post(node_path(node, action))
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['name']}: {'enabled' if found['enabled'] else 'disabled; its link is closed'}")


@nodes.command("disable")
@config_option
@json_option
@click.argument("node")
def disable(config: str | None, node: str, *, as_json: bool) -> None:
    """Hold no link to a node. Its clients stay connected."""
    _switch(config, node, "disable", as_json=as_json)


@nodes.command("enable")
@config_option
@json_option
@click.argument("node")
def enable(config: str | None, node: str, *, as_json: bool) -> None:
    """Hold a link to a node again."""
    _switch(config, node, "enable", as_json=as_json)


@nodes.command("revoke")
@config_option
@json_option
@click.argument("node")
@click.option("--serial", help="Only this certificate; default: all of the node's.")
@click.option("--reason", default="", help="For the audit log.")
def revoke(config: str | None, node: str, serial: str | None, reason: str, *, as_json: bool) -> None:
    """Revoke a node's certificates; its link is closed at once."""
    done = client(config).post(node_path(node, "revoke"), {"serial": serial, "reason": reason})
    if as_json:
        print_json(done)
    else:
        click.echo(f"revoked: {', '.join(done['revoked'])}")


@nodes.command("remove")
@config_option
@json_option
@click.argument("node")
@yes_option
@click.option("--forget", is_flag=True, help="Only from the inventory: the host is gone, or is to be left as it is.")
@wait_option
def remove(config: str | None, node: str, *, yes: bool, forget: bool, wait: bool, as_json: bool) -> None:
    """Take clients off a node, remove the agent from its host over SSH, and the node from the inventory."""
    asking = client(config)
    found = asking.get(node_path(node))
    if not yes:
        confirm(f"Remove {found['name']} ({found['control_addr']})?", scripts_may=True)
    if found["server_id"] and not forget:
        begin(config, node_path(found["id"], "remove"), {}, wait=wait, as_json=as_json)
    else:
        asking.call("DELETE", f"/api/nodes/{found['id']}?version={found['version']}")
    print_json({"removed": found["id"]}) if as_json else click.echo(f"{found['name']}: removed")
