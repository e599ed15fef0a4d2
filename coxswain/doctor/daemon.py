"""A running daemon, asked through its API, here or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from coxswain import __version__
from coxswain.doctor.finding import Finding, fail, ok, warn
from coxswain.errors import CoxswainError, DaemonNotRunning
from coxswain.words import counted

__all__ = ["check_daemon"]

_MOST_NAMED = 8
_MANY_RESTARTS = 10
_DEEP_MAILBOX = 1_000
_BUSY_S = 5.0
_ALL = "admin"
"""The scope that may see everything."""

Get = Callable[[str], Any]
"""Asks the API: a path to its answer."""


def check_daemon(get: Get, *, may_be_stopped: bool, scope: str = _ALL) -> Iterator[Finding]:
    """``may_be_stopped``: the daemon is ours; one that does not run is a warning, not a failure. ``scope``: that of the
    credential; what it may not see is left out, and that is said.
    """
    try:
        status = get("/api/status")
    except DaemonNotRunning as error:
        yield (warn if may_be_stopped else fail)("daemon", str(error), error.remedy or "Start it with: cox serve")
        return
    except CoxswainError as error:
        yield fail("daemon", str(error), error.remedy or "See its log.")
        return
    if status["version"] != __version__:
        yield warn("daemon", f"it is {status['version']}, this is {__version__}", "Start it again, with the same release.")
    for part in (_tree, _nodes, _relays, _config, _audit, _operations):
        if part is _config and scope != _ALL:  # nor asked for: a refusal would be in the audit log each time
            yield warn(
                "configuration",
                f"cannot be looked at with this token: it takes the scope {_ALL}, and this one has {scope}",
                f"Make one that may: cox tokens create NAME --scope {_ALL}; or run cox doctor on the daemon's machine.",
            )
            continue
        try:
            yield from part(get)
        except CoxswainError as error:
            yield fail("daemon", f"it does not say how it is: {error}", error.remedy or "See its log.")


def _tree(get: Get) -> Iterator[Finding]:
    workers = list(_workers(get("/api/tree")))
    down = [w for w in workers if w["state"] != "running"]
    for worker in down:
        yield fail(
            "daemon", f"{worker['id']} is {worker['state']}: {_first(worker['last_failure'])}", "See: cox tree, and the log."
        )
    for worker in workers:
        if worker["restarts"] >= _MANY_RESTARTS:
            yield warn(
                "daemon",
                f"{worker['id']} was restarted {counted(worker['restarts'], 'time')}: {_first(worker['last_failure'])}",
                "See the log; please report it if it goes on.",
            )
        if worker["busy_s"] > _BUSY_S or worker["mailbox"] > _DEEP_MAILBOX:
            yield warn(
                "daemon",
                f"{worker['id']} does not keep up: {counted(worker['mailbox'], 'message')} waiting, "
                f"{worker['busy_s']:.0f} s in one",
                "Is the machine, or the database, too slow? See: cox tree",
            )
        if worker["zombies"]:
            yield warn(
                "daemon",
                f"{worker['id']} has left {worker['zombies']} threads behind",
                "Start the daemon again in a quiet hour.",
            )
    if not down:
        yield ok("daemon", f"runs, with all of its {len(workers)} parts")


def _workers(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All but the links, whose troubles are ordinary life."""
    yield node
    if node["id"] != "node_links":
        for child in node["children"]:
            yield from _workers(child)


def _nodes(get: Get) -> Iterator[Finding]:
    nodes = [n for n in get("/api/nodes") if n["enabled"]]
    names: dict[str, list[str]] = {"unreachable": [], "degraded": [], "behind": [], "certificate": []}
    for node in nodes:
        if not node["enrolled"]:
            names["certificate"].append(node["name"])
        elif node["link_state"] not in ("live", "degraded", "syncing"):
            names["unreachable"].append(node["name"])
        elif node["link_state"] == "degraded":
            names["degraded"].append(f"{node['name']} ({node['link_reason'][:60]})")
        elif not node["in_sync"]:
            names["behind"].append(node["name"])
    what = {
        "certificate": ("has no certificate", "have no certificate", "Enrol them: cox nodes enroll NODE"),
        "unreachable": ("is not linked", "are not linked", "See: cox nodes status NODE; it is tried again by itself."),
        "degraded": ("is degraded", "are degraded", "See: cox nodes plan NODE"),
        "behind": ("is not in sync", "are not in sync", "It may take a moment; otherwise: cox nodes push NODE"),
    }
    for kind, found in names.items():
        if found:
            more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
            one, several, remedy = what[kind]
            text = one if len(found) == 1 else several
            yield warn("nodes", f"{len(found)} of {len(nodes)} {text}: {', '.join(found[:_MOST_NAMED])}{more}", remedy)
    if nodes and not any(names.values()):
        whole = "the only one is" if len(nodes) == 1 else f"all {len(nodes)} are"
        yield ok("nodes", f"{whole} linked and in sync")


def _relays(get: Get) -> Iterator[Finding]:
    """Tunnels that do not stand, each with what it fails on: there are few relays, and no device syncs through these."""
    for relay in get("/api/relays"):
        if relay["status"] == "removed":
            text = f"{relay['name']} was removed after the backup that was restored"
            yield warn("relays", text, f"Take it out of the inventory as well: cox relays remove {relay['id']}")
        elif relay["tunnel"] == "waiting":
            text = f"the tunnel of {relay['name']} does not stand: {relay['tunnel_error'] or 'it fell'}"
            yield warn("relays", text, "It is dialled again by itself. See: cox relays list")


def _config(get: Get) -> Iterator[Finding]:
    config = get("/api/config")
    if config["problem"]:
        yield fail(
            "configuration",
            f"the daemon's file is not sound any more: {config['problem']}",
            "Mend it before the next start.",
        )
    if config["reloadable"]:
        keys = ", ".join(change["key"] for change in config["reloadable"])
        yield warn("configuration", f"the daemon does not know yet of: {keys}", "Let it read its file: cox config reload")
    if config["pending"]:
        keys = ", ".join(change["key"] for change in config["pending"])
        yield warn("configuration", f"waits for the next start: {keys}", "See: cox config show --pending")


def _audit(get: Get) -> Iterator[Finding]:
    for sentence in get("/api/audit/head")["findings"]:
        yield fail("audit log", sentence, "See: cox audit verify, and docs/audit.md.")


def _operations(get: Get) -> Iterator[Finding]:
    """Those about which something has to be done: not what another one has done on the same since."""
    for state, one, several in (("failed", "has failed", "have failed"), ("waiting", "waits for a secret", "wait for one")):
        found = [o for o in get(f"/api/operations?state={state}&limit=100") if not o.get("overtaken_by")]
        if found:
            kinds = ", ".join(f"{o['kind']} {o['id']}" for o in found[:_MOST_NAMED])
            text = f"{len(found)} {one if len(found) == 1 else several}: {kinds}"
            yield warn("operations", text, "See: cox operations show ID; retry or cancel it.")


def _first(text: str) -> str:
    return (text.splitlines() or ["no reason known"])[0][:120]
