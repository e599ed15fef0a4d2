"""Opening a host for an operation: the pinned key, the controller's own key, the active control path. One way for all of
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coxswain.errors import CoxswainError, InvalidInput, NodeFailure, NodeUnreachable, NotFound, Refused
from coxswain.messages import fleet
from coxswain.messages import servers as m
from coxswain.onboarding.facts import SCRIPT, check_fit, read_absent, read_clock, read_facts
from coxswain.operations import Work
from coxswain.servers import Server
from coxswain.ssh import Dialer, Host, HostKeyChanged, LocalHost, SshHost, connect
from coxswain.ssh.connection import Login, Target

__all__ = [
    "KEY",
    "facts_of",
    "login_with_key",
    "node_id_of",
    "node_view",
    "open_host",
    "server_of",
    "take_back_on_host",
    "target_of",
]

KEY = "host"
"""Under this name the steps of an operation share their connection."""


def server_of(work: Work) -> Server:
    """The machine that the operation is about."""
    server_id = work.data.get("server_id") or work.params.get("server_id")
    if not server_id:
        raise InvalidInput("server: this operation has no machine to work on")
    found: Server = work.ask("servers", m.GetServer(str(server_id)))
    return found


def node_id_of(work: Work) -> str:
    """Of the node that the operation is about."""
    return str(work.data.get("node_id") or work.params["node_id"])


def node_view(work: Work) -> fleet.NodeView:
    """What is known of it now. Raises ``NotFound``."""
    view: fleet.NodeView = work.ask("fleet", fleet.GetNode(node_id_of(work)))
    return view


def target_of(server: Server, route: Any = ()) -> Target:
    return Target(server.ssh_host, server.ssh_port, server.ssh_user, server.ssh_host_key, tuple(route or ()))


def open_host(work: Work, dialer: Dialer, otherwise: str = "") -> Host:
    """The machine, connected and with root's rights; the same connection for all steps of a run. ``otherwise``: what to do
    where it is not reached.

    Raises:
        HostKeyChanged: also recorded, so that the operator can decide with ``cox servers trust``.
        NodeFailure: it cannot be reached, or does not let us in.
    """
    return work.shared(KEY, lambda: _open(work, dialer, otherwise))


def take_back_on_host(work: Work, dialer: Dialer, undo: Callable[[Work, Host], None]) -> None:
    """Undoes a step on the machine, if it is still one of ours: what was removed is nobody's to change any more."""
    try:
        server_of(work)
    except NotFound as gone:
        work.say(f"{gone}; on it nothing is taken back")
        return
    undo(work, open_host(work, dialer))


def _open(work: Work, dialer: Dialer, otherwise: str) -> Host:
    server = server_of(work)
    if server.is_self:
        here = LocalHost()
        facts_of(here)
        return here
    if server.offered_host_key:
        raise HostKeyChanged(server.ssh_host, server.ssh_host_key, server.offered_host_key)
    if not server.ssh_host_key:
        raise Refused(
            f"server {server.name}: its host key is not known", remedy=f"Onboard it again: cox servers add {server.ssh_host}"
        )
    try:
        host = login_with_key(work, target_of(server, work.params.get("route")), dialer)
        facts_of(host)
    except HostKeyChanged as changed:
        work.tell("servers", m.HostKeyOffered(server.id, changed.offered))
        raise
    except NodeUnreachable as error:
        moved = f"Is it on, and does its sshd answer? If it has moved: cox servers edit {server.name} --host ADDRESS"
        raise NodeUnreachable(str(error), remedy=error.remedy or otherwise or moved) from None
    return host


def login_with_key(work: Work, target: Target, dialer: Dialer) -> SshHost:
    """With the controller's own key. What hangs is cut off when the operation is."""
    identity = work.ask("servers", m.GetSshIdentity())
    return connect(target, Login(identity=identity), dialer, hold=work.hold)


def facts_of(host: Host) -> dict[str, str]:
    """What the host is; asked once in each connection. Raises ``NodeRefused`` where nothing can be done."""
    if host.facts is not None:
        return host.facts
    done = host.ask(SCRIPT, what="asking what it is", deadline=30)
    if done.code:
        raise NodeFailure(f"{host.name}: asking what it is failed (exit code {done.code}): {done.printed[:300]}")
    facts = read_facts(done.stdout)
    try:
        check_fit(facts)
    except CoxswainError as error:
        raise type(error)(f"{host.name}: {error}", remedy=error.remedy) from None
    host.sudo = facts["sudo"] == "yes"
    host.facts = facts
    host.absent = read_absent(done.stdout)
    host.clock = read_clock(done.stdout)
    return facts
