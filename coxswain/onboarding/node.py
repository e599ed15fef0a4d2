"""Nodes over SSH: ``node.add``, ``node.update``, ``node.renew``, ``node.rollback``, ``node.guard``, ``node.start``,
``node.stop``; and ``node.remove``, whose steps are in ``removal.py``.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from coxswain.errors import Conflict, InvalidInput, NodeFailure, NodeUnreachable, NotFound, Unavailable
from coxswain.inventory import check_name, check_region, check_runs, parse_control_addr
from coxswain.messages import ca, fleet, links
from coxswain.model import LinkState, NetworkPolicy, Node, NodeStatus
from coxswain.onboarding.access import facts_of, node_id_of, node_view, open_host, server_of, take_back_on_host
from coxswain.onboarding.account import hand_over, made_for
from coxswain.onboarding.beforehand import check_node
from coxswain.onboarding.binary import is_newer, normalise_version
from coxswain.onboarding.facts import ASK_CLOCK, check_room, clock_words, has_no_uplink, read_clock
from coxswain.onboarding.guard import check_sources, guard, unguard
from coxswain.onboarding.install import (
    get_csr,
    install,
    prepare,
    put_back,
    remember_key,
    stage,
    staged_version,
    swap_back,
    swap_forth,
    swap_in,
    unstage,
)
from coxswain.onboarding.removal import forget, removing
from coxswain.onboarding.service import (
    restart_what_runs,
    runs_as_it_should,
    start_unit,
    start_with,
    stop_units,
    wait_until_up,
)
from coxswain.onboarding.units import NODE, NODE_UNIT, node_unit
from coxswain.operations import Kind, OnFailure, Step, Work
from coxswain.ssh import Dialer, Host, SentFile

__all__ = ["node_kinds"]

_UNIT = NODE_UNIT
_LIVE_S = 90.0
_REACH_S = 10.0
_AGENTS = ("node.add", "node.update", "node.rollback", "node.remove")
"""Whichever of them was done last says which agent is on the host, if any."""
_RUNNING = ("node.start", "node.stop", *_AGENTS)
"""And of these, whether it runs."""

Doing = Callable[[Work, Host], None]


def node_kinds(dialer: Dialer) -> tuple[Kind, ...]:
    """All kinds about nodes on machines that the controller can log in to."""

    def on_host(name: str, title: str, do: Doing, undo: Doing | None = None, deadline_s: float = 120) -> Step:
        back = undo
        return Step(
            name,
            title,
            lambda work: do(work, open_host(work, dialer)),
            None if back is None else lambda work: take_back_on_host(work, dialer, back),
            deadline_s,
        )

    look = on_host("host", "connect, and look at what the host is", _look, deadline_s=90)
    look_first = on_host("host", look.title, _look_first, deadline_s=look.deadline_s)
    look_again = Step("host", look.title, lambda work: _look_if_it_runs(work, dialer), deadline_s=look.deadline_s)
    binary = on_host("agent", "install the agent", _install, _uninstall_agent, deadline_s=1_200)
    certificate = on_host("certificate", "issue and push its certificate", _certify, deadline_s=90)
    live = on_host("live", "prove the link", _prove, deadline_s=_LIVE_S + 30)
    adding = (
        look_first,
        Step("inventory", "take it into the inventory", _take_in, _take_out, deadline_s=30),
        on_host("prepare", "prepare the host: AmneziaWG, forwarding", prepare, deadline_s=1_200),
        binary,
        on_host("certificate", "issue and push its certificate", _certify, _decertify, deadline_s=90),
        on_host("service", "start the service", _start_service, _stop_service, deadline_s=90),
        on_host("guard", "limit who reaches the control port", _guard, unguard, deadline_s=60),
        on_host("live", "prove the link", _prove_new, deadline_s=_LIVE_S + 30),
    )
    updating = (
        look_again,
        on_host("agent", "upload the agent and try it out", _stage_newer, _unstage, deadline_s=1_200),
        on_host("switch", "put it in place and restart it", _switch, _switch_back, deadline_s=120),
        live,
    )
    renewing = (look_again, certificate, on_host("restart", "restart the agent", _restart, deadline_s=90), live)
    rolling_back = (
        look_again,
        on_host("swap", "put the previous agent back", _swap_back, _swap_forth, deadline_s=120),
        on_host("restart", "restart the agent", _restart, deadline_s=90),
        live,
    )
    guarding = (
        look,
        on_host("guard", "limit who reaches the control port", _guard, unguard, deadline_s=60),
        Step("reach", "reach the control port anew", lambda work: _reach(work, dialer), deadline_s=60),
    )
    starting = (
        on_host("start", "start the service", lambda _work, host: start_unit(host, _UNIT)),
        Step("enable", "hold a link to it", _enable),
        live,
    )
    stopping = (
        Step("disable", "close the link to it", lambda work: _disable(work, dialer), deadline_s=90),
        on_host("stop", "stop the service", lambda _work, host: _systemctl(host, "stop")),
    )
    return (
        _kind(
            "node.add",
            adding,
            check=_check_add,
            after_failure=_mark_failed,
            locks=_machine,
            overtaken_by=(*_AGENTS, "node.renew", "node.start"),
        ),
        _kind("node.update", updating, on_failure=OnFailure.UNDO, action="node.update-agent", overtaken_by=_AGENTS),
        _kind("node.renew", renewing, overtaken_by=("node.renew", "node.add", "node.remove")),
        _kind("node.rollback", rolling_back, overtaken_by=_AGENTS),
        _kind("node.guard", guarding, on_failure=OnFailure.UNDO),
        _kind("node.start", starting, overtaken_by=_RUNNING),
        _kind("node.stop", stopping, overtaken_by=_RUNNING),
        _kind("node.remove", removing(dialer), overtaken_by=("node.add",)),
    )


def _kind(
    name: str,
    steps: tuple[Step, ...],
    *,
    check: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
    locks: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None,
    on_failure: OnFailure = OnFailure.KEEP,
    after_failure: Callable[[Work], None] | None = None,
    action: str = "",
    overtaken_by: tuple[str, ...] = (),
) -> Kind:
    return Kind(
        name=name,
        steps=lambda _params: steps,
        check=check,
        target=lambda params, data: ("node", str(data.get("node_id") or params.get("node_id") or "")),
        locks=locks or (lambda params: (f"node:{params['node_id']}", f"server:{params['server_id']}")),
        on_failure=on_failure,
        action=action,
        after_failure=after_failure,
        overtaken_by=overtaken_by,
    )


def _machine(params: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"server:{params['server_id']}",)


def _check_add(params: Mapping[str, Any]) -> dict[str, Any]:
    region = check_region(str(params.get("region") or ""))
    short = secrets.token_hex(3)
    name = str(params.get("name") or "") or (f"node-{region}-{short}" if region.isalnum() else f"node-{short}")
    if not params.get("server_id") or not params.get("source"):
        raise InvalidInput("server_id, source: are needed")
    sources = check_sources(params.get("control_from") or ())
    return {**params, "control_from": sources, "name": check_name(name), "region": region, "named": bool(params.get("name"))}


# -- steps


def _look(work: Work, host: Host) -> None:
    facts = facts_of(host)
    work.keep(facts=facts)
    work.say(f"{facts.get('os_name') or facts.get('os')}, {facts['arch']}, {facts.get('free_mb') or '?'} MB free")


def _look_first(work: Work, host: Host) -> None:
    """What its policy needs fails in the last step only, so it is said in the first; a route may still come until then."""
    _look(work, host)
    if wrong := clock_words(host.clock, work.now()):
        work.say(f"! {wrong}")
    check_room(host.name, work.data["facts"])
    views: list[fleet.NodeView] = work.ask("fleet", fleet.ListNodes(server_id=server_of(work).id))
    policy = views[0].node.policy if views else NetworkPolicy()
    if policy.masquerade and has_no_uplink(work.data["facts"]):
        work.say(
            "! it has no default route (IPv4; ip route show default), without which agents do not masquerade, as the node's "
            "policy wants it: give it one, or take that from the node once it is in the inventory "
            "(cox nodes edit NODE --no-masquerade)"
        )


def _look_if_it_runs(work: Work, dialer: Dialer) -> None:
    """It may have been stopped since this was asked for, as in the middle of a rollout."""
    check_runs(node_view(work).node)
    _look(work, open_host(work, dialer))


def _take_in(work: Work) -> None:
    """A node that is on this machine already is onboarded again; so is one that an interrupted attempt left."""
    server = server_of(work)
    name = work.params["name"]
    there = check_node(work.ask, server, name if work.params["named"] else "")
    if there is not None:
        work.remember(added=there.status is NodeStatus.PROVISIONING)
        served = there.enabled and there.status is not NodeStatus.PROVISIONING
        work.keep(node_id=there.id, node_name=there.name, served=served, new=there.status is NodeStatus.PROVISIONING)
        work.say(f"it is the node {there.name}")
        return
    host = server.ssh_host
    message = fleet.AddNode(
        caller=work.caller,
        name=name,
        control_addr=parse_control_addr(host),
        region=work.params["region"] or server.region,
        public_ip=host if _is_ip(host) else "",
        server_id=server.id,
        provisioning=True,
        unique=True,
    )
    work.remember(added=True)
    node: Node = work.change("fleet", message)
    work.keep(node_id=node.id, node_name=node.name, new=True)


def _take_out(work: Work) -> None:
    if work.remembered.get("added") and work.data.get("node_id"):
        forget(work)
    elif work.data.get("served"):
        with contextlib.suppress(NotFound):  # it was taken out of the inventory since
            _enable(work)  # the failure disabled it


def _install(work: Work, host: Host) -> None:
    install(work, host, NODE)
    if work.data.get("new") and work.data.get("had_key"):
        work.say("! an agent had its key there before; where that is another controller's node, it is taken from that one")


def _uninstall_agent(work: Work, host: Host) -> None:
    unstage(host, NODE)
    put_back(work, host, NODE)
    restart_what_runs(work, host, _UNIT)  # the unit from before


def _stage_newer(work: Work, host: Host) -> None:
    is_there = stage(work, host, NODE)
    work.keep(unchanged=is_there and not work.params.get("force") and _goes_on(work, host))
    if work.data["unchanged"]:
        work.say("it runs, so nothing is restarted; --force does it all the same")
        return
    candidate, present = staged_version(host, NODE), node_view(work).node.agent_version
    known = normalise_version(candidate) and normalise_version(present)
    if candidate and known and not is_newer(candidate, present) and not work.params.get("force"):
        unstage(host, NODE)
        if not work.params.get("or_newer"):
            raise Conflict(
                f"the agent is {present}, and {candidate} is not newer", remedy="Say --force to install it anyway."
            )
        work.keep(unchanged=True, newer=True)
        work.say(f"the agent is {present}, and {candidate} is not newer; nothing is changed")


def _goes_on(work: Work, host: Host) -> bool:
    """Whether the agent in place runs, with the unit that it needs, and answers: to start it anew would mend nothing."""
    if node_view(work).link_state is not LinkState.LIVE:
        return False
    return runs_as_it_should(host, NODE, _UNIT, node_unit(made_for(host)))


def _unstage(_work: Work, host: Host) -> None:
    unstage(host, NODE)


def _switch(work: Work, host: Host) -> None:
    if work.data.get("unchanged"):
        return
    swap_in(work, host, NODE)
    _restart(work, host)


def _switch_back(work: Work, host: Host) -> None:
    if work.data.get("unchanged"):
        return
    put_back(work, host, NODE)
    _start_unit(work, host)


def _certify(work: Work, host: Host) -> None:
    remember_key(work, host, NODE)
    request = ca.IssueNodeCertificate(work.caller, node_id_of(work), get_csr(host, NODE))
    issued: ca.IssuedNodeCertificate = work.change("certificate_authority", request)
    certificates = {"node": issued.node_crt, "ca": issued.ca_crt}
    host.put_and_run([SentFile(f"/etc/node/{name}.crt", crt, 0o644) for name, crt in certificates.items()])
    work.say(f"certificate {issued.serial} for {work.data.get('node_name') or node_id_of(work)}")


def _decertify(work: Work, host: Host) -> None:
    """A node that had its key before goes on with the new certificate: it is for the same key, and the old one is gone."""
    if work.remembered.get("had_key") is not False:
        return
    try:
        work.change(
            "certificate_authority", ca.RevokeNodeCertificates(work.caller, node_id_of(work), None, "onboarding taken back")
        )
    except NotFound:
        work.say("there was no certificate to revoke")
    host.run("rm -f /etc/node/node.crt /etc/node/ca.crt /etc/node/node.key", what="removing the certificate")


def _start_unit(work: Work, host: Host) -> None:
    """The one that the agent in place needs, and with it the user and the ownership of files."""

    def write() -> str:
        account = hand_over(host, NODE)
        work.say(f"the agent runs as {account}")
        return node_unit(account)

    start_with(work, host, _UNIT, write)


def _start_service(work: Work, host: Host) -> None:
    work.keep(restarted_at=work.now())
    _start_unit(work, host)
    _enable(work)


def _stop_service(work: Work, host: Host) -> None:
    stop_units(work, host, NODE, _UNIT)


def _restart(work: Work, host: Host) -> None:
    check_runs(node_view(work).node)  # a step that failed may be retried when it is stopped
    work.keep(restarted_at=work.now())
    _start_unit(work, host)


def _swap_back(work: Work, host: Host) -> None:
    swap_back(work, host, NODE)


def _swap_forth(work: Work, host: Host) -> None:
    """Starts it also where it was in its place already: an attempt before this one may have got no further than that."""
    if swap_forth(work, host, NODE) and work.data.get("restarted_at") and node_view(work).node.enabled:
        _start_unit(work, host)


def _guard(work: Work, host: Host) -> None:
    address = parse_control_addr(node_view(work).node.control_addr)
    guard(work, host, check_sources(work.params.get("control_from") or ()), int(address.rpartition(":")[2]))


def _reach(work: Work, dialer: Dialer) -> None:
    """Along the control path, as links are."""
    address = parse_control_addr(node_view(work).node.control_addr)
    host, _, port = address.rpartition(":")
    try:
        dialer.dial(host.strip("[]"), int(port), timeout=_REACH_S).close()
    except NodeUnreachable as error:
        raise NodeUnreachable(
            f"{error}: the new rules shut this controller out, and are taken back",
            remedy="Put the address from which the host sees this controller into node.control_from, or auto.",
        ) from None


def _prove_new(work: Work, host: Host) -> None:
    """An attempt that failed here disabled the node (``_mark_failed``): without a link nothing could be proven."""
    _enable(work)
    _prove(work, host)


def _prove(work: Work, host: Host) -> None:
    """The link has spoken to the agent since it was started, and the node is what it should be: policy and peers applied."""
    since = float(work.data.get("restarted_at") or 0.0)
    nudged = work.now()

    def live() -> bool:
        nonlocal nudged
        view = node_view(work)
        if view.link_state is LinkState.LIVE and view.since >= since and view.in_sync and view.node.policy_confirmed:
            return _answers(work)
        if work.now() - nudged > 1.0:
            nudged = work.now()
            work.tell(f"node_link:{node_id_of(work)}", links.Look())
        return False

    def why() -> str:
        told = read_clock(host.run(ASK_CLOCK, check=False).stdout)
        return "; ".join(filter(None, (node_view(work).link_reason, clock_words(told, work.now()))))

    wait_until_up(work, host, _UNIT, live, "the link to the agent", timeout=_LIVE_S, why=why)
    node = node_view(work).node
    work.keep(agent_version=node.agent_version)
    work.say(f"the agent {node.agent_version} answers, and has its policy and {node.config_revision} as its revision")


def _answers(work: Work) -> bool:
    """Asks the agent itself: a link that came up to the old one while that was being stopped looks live a moment longer."""
    try:
        work.ask(f"node_link:{node_id_of(work)}", links.PreviewPlan())
    except (NodeFailure, Unavailable):
        return False
    return True


def _mark_failed(work: Work) -> None:
    if work.data.get("served") and not work.data.get("restarted_at"):
        return  # it goes on as it was: of what runs there nothing was touched
    if work.data.get("node_id"):
        if node_view(work).node.enabled:
            work.change("fleet", fleet.SetNodeEnabled(work.caller, node_id_of(work), False))
        work.change("fleet", fleet.SetNodeStatus(work.caller, node_id_of(work), NodeStatus.ERROR))


def _enable(work: Work) -> None:
    if not node_view(work).node.enabled:
        work.change("fleet", fleet.SetNodeEnabled(work.caller, node_id_of(work), True))


def _disable(work: Work, dialer: Dialer) -> None:
    """Not of one whose service could not be stopped then, and would go on out of sight."""
    open_host(work, dialer, f"To close its link only: cox nodes disable {work.params['name']}")
    if node_view(work).node.enabled:
        work.change("fleet", fleet.SetNodeEnabled(work.caller, node_id_of(work), False))


def _systemctl(host: Host, verb: str) -> None:
    host.run(f"systemctl {verb} {_UNIT}", what=f"systemctl {verb} {_UNIT}", deadline=60)


def _is_ip(host: str) -> bool:
    import ipaddress  # noqa: PLC0415 - beside its one use

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
