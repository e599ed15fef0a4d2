"""Taking a node off its machine: its clients first, then the agent, then the inventory; and what of it can be taken back."""

from __future__ import annotations

from coxswain.errors import Conflict, CoxswainError, NodeFailure, NotFound
from coxswain.messages import ca, fleet
from coxswain.model import LinkState, NetworkPolicy, Node
from coxswain.onboarding.access import node_id_of, node_view, open_host
from coxswain.onboarding.install import uninstall
from coxswain.onboarding.units import NODE, NODE_UNIT, unit_file
from coxswain.operations import Step, Work
from coxswain.pki.certificates import is_of_another
from coxswain.ssh import Dialer, Host

__all__ = ["check_is_ours", "forget", "removing"]

_DRAIN_S = 60.0
_SILENT = (LinkState.CONNECTING, LinkState.BACKING_OFF)
"""Links to an agent that may well not run."""


def removing(dialer: Dialer) -> tuple[Step, ...]:
    """The steps of ``node.remove``."""
    return (
        Step("drain", "take its clients and its policy off", lambda w: _drain(w, dialer), _refill, deadline_s=_DRAIN_S + 90),
        Step(
            "uninstall",
            "stop the agent and remove it",
            lambda work: uninstall(open_host(work, dialer), NODE, NODE_UNIT),
            lambda work: _start_what_is_left(work, dialer),
            deadline_s=120,
        ),
        Step("inventory", "take it out of the inventory", forget, deadline_s=30),
    )


def forget(work: Work) -> None:
    try:
        work.change("fleet", fleet.RemoveNode(work.caller, node_id_of(work)))
    except NotFound:
        return  # an earlier attempt did it


def check_is_ours(work: Work, host: Host, certificate: str, remedy: str) -> None:
    """Whether what is on the host is this controller's. Another one may have onboarded the host since, or again: that one's
    service, clients and keys would go. ``certificate``: its path there.

    Raises:
        Conflict: it serves with a certificate of another CA.
    """
    raw = host.read(certificate)
    if raw is None:
        return
    view: ca.CaView = work.ask("certificate_authority", ca.DescribeCa())
    if is_of_another(raw, {authority.fingerprint for authority in view.authorities}, work.now()):
        raise Conflict(
            f"{host.name}: {certificate} is another controller's by now, and so is what runs there; it was not removed",
            remedy=remedy,
        )


def _drain(work: Work, dialer: Dialer) -> None:
    """An empty peer set, and no forwarding, while the agent still listens. One that does not answer is removed all the
    same; one whose host cannot be logged in to goes on as it is.
    """
    try:
        view = node_view(work)
    except NotFound:
        return
    work.remember(noted=True)  # of what is taken off, if anything is; releases before this one noted nothing
    work.ask("fleet", fleet.CheckNodeUnused(view.node.id))  # before anything is stopped, as at the end it would be refused
    host = open_host(work, dialer, f"If the host is gone: cox nodes remove {view.node.name} --forget")
    if not view.node.enabled or view.link_state in _SILENT:
        _check_certificate(work, host, view.node)
    if not view.node.enabled:
        work.say("the node is disabled; its clients were cut off with its service")
        return
    if view.link_state in _SILENT and host.run(f"systemctl is-active --quiet {NODE_UNIT}", check=False).code:
        work.say("its agent does not run, and can take nothing off; what it left goes with it")
        return
    if "policy" not in work.remembered:
        policy = view.node.policy
        flags = [policy.forwarding, policy.masquerade, policy.isolation]
        work.remember(policy=flags, endpoint_ports=view.node.endpoint_ports)
    work.change("fleet", fleet.DrainNode(work.caller, view.node.id))
    try:
        work.wait_for(lambda: node_view(work).in_sync, "the node taking its clients off", timeout=_DRAIN_S)
    except CoxswainError as error:
        work.check()
        _check_certificate(work, host, view.node)
        work.say(f"it did not answer ({error}); the agent is stopped all the same")


def _check_certificate(work: Work, host: Host, node: Node) -> None:
    """Nobody has to ask where a link stands: its agent showed that certificate."""
    check_is_ours(work, host, f"{NODE.directory}/node.crt", f"To forget it here only: cox nodes remove {node.name} --forget")


def _refill(work: Work) -> None:
    """Its policy and ports are as they were, and devices are given what they lack. Peers that were made by hand are gone."""
    policy, ports = work.remembered.get("policy"), work.remembered.get("endpoint_ports")
    try:
        node = node_view(work).node
    except NotFound:
        return
    if policy is None:
        if not work.remembered.get("noted"):
            _say_what_is_off(work, node)
        return
    before = fleet.EditNode(work.caller, node.id, node.version, policy=NetworkPolicy(*policy), endpoint_ports=ports)
    work.change("fleet", before)


def _say_what_is_off(work: Work, node: Node) -> None:
    """Releases before this one noted nothing before they drained; what to put back nobody knows then. The default might let
    clients reach each other that must not.
    """
    if node.enabled and not node.policy.forwarding:
        work.say(
            f"! {node.name} forwards nothing. The removal, begun by an earlier release, may have switched that off, and did "
            f"not note what its policy and its range of ports were: cox nodes edit {node.name} --forwarding --masquerade, "
            f"and cox nodes endpoints {node.name} --ports"
        )


def _start_what_is_left(work: Work, dialer: Dialer) -> None:
    try:
        host = open_host(work, dialer)
    except (NodeFailure, NotFound) as error:
        work.say(f"{error}; on it nothing is taken back")
        return
    there = host.run(f"[ -e {unit_file(NODE_UNIT)} ] && [ -e {NODE.binary} ]", check=False).code == 0
    if there and node_view(work).node.enabled:
        host.run(f"systemctl enable --now {NODE_UNIT}", what=f"starting {NODE_UNIT} again", deadline=60)
    elif not there:
        work.say("the agent is gone from its host: onboard it again, or remove the node")
