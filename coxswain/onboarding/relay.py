"""Relays over SSH: ``relay.add``, ``relay.update``, ``relay.renew``, ``relay.remove`` (fleet-model.md 3.5,
relay-contract.md 7).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from coxswain.errors import InvalidInput, NodeMisbehaved, NotFound
from coxswain.inventory import check_name, check_region, host_of, parse_control_addr
from coxswain.messages import ca
from coxswain.messages import servers as m
from coxswain.messages.relays import DescribeTunnels, TunnelState, TunnelView
from coxswain.onboarding.access import facts_of, open_host, server_of, take_back_on_host
from coxswain.onboarding.account import hand_over
from coxswain.onboarding.beforehand import check_relay
from coxswain.onboarding.facts import check_room, clock_words
from coxswain.onboarding.install import (
    get_csr,
    install,
    put_back,
    remember_key,
    stage,
    swap_in,
    uninstall,
    unstage,
)
from coxswain.onboarding.neighbours import CLIENT_PORT
from coxswain.onboarding.removal import check_is_ours
from coxswain.onboarding.service import (
    end_units,
    restart_what_runs,
    runs_as_it_should,
    start_with,
    stop_units,
    wait_until_up,
)
from coxswain.onboarding.units import RELAY, RELAY_UNITS, egress_unit, ingress_unit, onion_unit
from coxswain.operations import Kind, OnFailure, Step, Work
from coxswain.relay.policy import FILE_NAME
from coxswain.servers import Relay, check_ssh_host
from coxswain.ssh import Dialer, Host, SentFile

__all__ = ["check_relay_params", "relay_kinds"]

TUNNEL_PORT = 8444
_INGRESS, _EGRESS, _ONION = _UNITS = RELAY_UNITS
_PROGRAMS = ("relay.add", "relay.update", "relay.remove")
"""Whichever of them was done last says which relay is on the host, if any."""

_POLICY = f"{RELAY.directory}/{FILE_NAME}"
_UP_S = 30.0
_TUNNEL_S = 10.0


def relay_kinds(dialer: Dialer) -> tuple[Kind, ...]:
    """All kinds about relays on machines that the controller can log in to."""

    def on_host(
        name: str,
        title: str,
        do: Callable[[Work, Host], None],
        undo: Callable[[Work, Host], None] | None = None,
        deadline_s: float = 120,
    ) -> Step:
        return Step(
            name,
            title,
            lambda work: do(work, open_host(work, dialer)),
            None if undo is None else lambda work: take_back_on_host(work, dialer, undo),
            deadline_s,
        )

    look = on_host("host", "connect, and look at what the host is", _look, deadline_s=90)
    adding = (
        on_host("host", look.title, _look_first, deadline_s=look.deadline_s),
        Step("inventory", "take it into the inventory", _take_in, _take_out, deadline_s=30),
        on_host("relay", "install the relay", lambda w, h: install(w, h, RELAY), _take_away, deadline_s=1_200),
        on_host("certificate", "issue and push its certificate", _certify, _decertify, deadline_s=90),
        on_host("services", "start its services", _start, _stop, deadline_s=120),
        on_host("live", "prove that it listens", _prove, deadline_s=_UP_S + 60),
    )
    updating = (
        look,
        on_host("relay", "upload the relay and try it out", _stage, _unstage, deadline_s=1_200),
        on_host("switch", "put it in place and restart it", _switch, _switch_back, deadline_s=120),
        on_host("live", "prove that it listens", _prove, deadline_s=_UP_S + 60),
    )
    renewing = (
        look,
        on_host("certificate", "issue and push its certificate", _certify, deadline_s=90),
        on_host("restart", "restart it", _restart, deadline_s=120),
        on_host("live", "prove that it listens", _prove, deadline_s=_UP_S + 60),
    )
    removing = (
        Step("hops", "see that it is no hop of a control path", _is_no_hop, deadline_s=30),
        Step(
            "uninstall",
            "stop the relay and remove it",
            lambda work: _uninstall(work, dialer),
            lambda work: take_back_on_host(work, dialer, _start_what_is_left),
            deadline_s=120,
        ),
        Step("inventory", "take it out of the inventory", _forget, deadline_s=30),
    )

    def kind(name: str, steps: tuple[Step, ...], **more: Any) -> Kind:
        return Kind(
            name=name,
            steps=lambda _params: steps,
            target=lambda params, data: ("relay", str(data.get("relay_id") or params.get("relay_id") or "")),
            locks=lambda params: (f"server:{params['server_id']}",),
            **more,
        )

    return (
        kind(
            "relay.add",
            adding,
            check=check_relay_params,
            after_failure=_mark_failed,
            overtaken_by=(*_PROGRAMS, "relay.renew"),
        ),
        kind("relay.update", updating, on_failure=OnFailure.UNDO, action="relay.update-agent", overtaken_by=_PROGRAMS),
        kind("relay.renew", renewing, overtaken_by=("relay.renew", "relay.add", "relay.remove")),
        kind("relay.remove", removing, overtaken_by=("relay.add",)),
    )


def check_relay_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Roles and names; fills in what is left out (fleet-model.md 3.5)."""
    p = dict(params)
    if not p.get("server_id") or not p.get("source"):
        raise InvalidInput("server_id, source: are needed")
    ingress, egress, onion = not p.get("no_ingress"), bool(p.get("egress")), bool(p.get("onion"))
    if onion and not egress:
        raise InvalidInput("onion: needs egress", remedy="Say --egress as well.")
    if not ingress and not egress:
        raise InvalidInput("no_ingress: leaves the relay without a role", remedy="Say --egress, or leave --no-ingress out.")
    hostname = check_ssh_host(str(p.get("hostname") or ""))
    bracketed = f"[{hostname}]" if ":" in hostname else hostname
    endpoint = parse_control_addr(str(p.get("endpoint") or f"{bracketed}:{TUNNEL_PORT}"))
    if ingress and host_of(endpoint) != hostname:
        raise InvalidInput(
            f"endpoint: its host {host_of(endpoint)!r} is not the hostname {hostname!r} in the relay's certificate",
            remedy="Give --hostname the name that clients and the controller dial.",
        )
    takes = {"clients": CLIENT_PORT, "the tunnel (endpoint)": int(endpoint.rpartition(":")[2])} if ingress else {}
    takes |= {"egress_port": int(p.get("egress_port") or 8456)} if egress else {}
    takes |= {"onion_port": int(p.get("onion_port") or 8457)} if onion else {}
    of: dict[int, str] = {}
    for role, port in takes.items():
        if port in of:
            raise InvalidInput(
                f"ports: two roles of a relay cannot share a port; {port} is that of {of[port]} and {role}",
                remedy="Give one of them another port.",
            )
        of[port] = role
    name = str(p.get("name") or "")
    return p | {
        "name": name and check_name(name),
        "region": check_region(str(p.get("region") or "")),
        "hostname": hostname,
        "endpoint": endpoint if ingress else "",
        "egress_endpoint": f"{bracketed}:{int(p.get('egress_port') or 8456)}" if egress else "",
        "onion_endpoint": f"{bracketed}:{int(p.get('onion_port') or 8457)}" if onion else "",
    }


# -- steps


def _look(work: Work, host: Host) -> None:
    facts = facts_of(host)
    work.keep(facts=facts)
    work.say(f"{facts.get('os_name') or facts.get('os')}, {facts['arch']}")


def _look_first(work: Work, host: Host) -> None:
    _look(work, host)
    if wrong := clock_words(host.clock, work.now()):
        work.say(f"! {wrong}")
    check_room(host.name, work.data["facts"])


def _relay_of(work: Work) -> Relay:
    found: Relay = work.ask("servers", m.GetRelay(str(work.data.get("relay_id") or work.params["relay_id"])))
    return found


def _take_in(work: Work) -> None:
    """A relay that is on this machine already is set up again with these roles."""
    p, server = work.params, server_of(work)
    there = check_relay(work.ask, server, p)
    roles = {name: p[name] for name in ("endpoint", "egress_endpoint", "onion_endpoint", "hostname")}
    if there is not None:
        if "before" not in work.remembered:
            before = {name: getattr(there, name) for name in (*roles, "status", "agent_version")}
            work.remember(added=there.status == "provisioning", before=before)
        work.change("servers", m.EditRelay(work.caller, there.id, roles))
        work.keep(relay_id=there.id)
        return
    relay = Relay(
        id="",
        name=p["name"],
        egress_hop=int(p.get("egress_hop") or 0),
        region=p["region"] or server.region,
        server_id=server.id,
        status="provisioning",
        **roles,
    )
    work.remember(added=True)
    added: Relay = work.change("servers", m.AddRelay(work.caller, relay))
    work.keep(relay_id=added.id)


def _take_out(work: Work) -> None:
    if work.remembered.get("added") and work.data.get("relay_id"):
        _forget(work)
    elif work.data.get("relay_id") and work.remembered.get("before"):
        with contextlib.suppress(NotFound):  # it was forgotten since
            work.change("servers", m.EditRelay(work.caller, work.data["relay_id"], dict(work.remembered["before"])))


def _is_no_hop(work: Work) -> None:
    """Before anything is stopped: what goes through it could not be reached any more."""
    with contextlib.suppress(NotFound):  # an earlier attempt took it out
        work.ask("servers", m.CheckNoHop(_relay_of(work).id))


def _forget(work: Work) -> None:
    try:
        work.change("servers", m.RemoveRelay(work.caller, _relay_of(work).id))
    except NotFound:
        return  # an earlier attempt did it


def _uninstall(work: Work, dialer: Dialer) -> None:
    forgetting = f"cox relays remove {work.params['name']} --forget"
    host = open_host(work, dialer, f"If the host is gone: {forgetting}")
    check_is_ours(work, host, f"{RELAY.directory}/relay.crt", f"To forget it here only: {forgetting}")
    uninstall(host, RELAY, *_UNITS)


def _start_what_is_left(work: Work, host: Host) -> None:
    """Its units are written anew, for as long as its program and its key are there."""
    try:
        relay = _relay_of(work)
    except NotFound as gone:
        work.say(f"{gone}; on its host nothing is taken back")
        return
    if host.run(f"[ -e {RELAY.binary} ] && [ -e {RELAY.key} ]", check=False).code == 0:
        _restart(work, host)
        return
    work.say("the relay is gone from its host: set it up again, or remove it")
    work.change("servers", m.EditRelay(work.caller, relay.id, {"status": "error"}))


def _take_away(work: Work, host: Host) -> None:
    unstage(host, RELAY)
    put_back(work, host, RELAY)
    restart_what_runs(work, host, *_UNITS)  # units from before


def _stage(work: Work, host: Host) -> None:
    is_there = stage(work, host, RELAY)
    work.keep(unchanged=is_there and not work.params.get("force") and _goes_on(work, host))
    if work.data["unchanged"]:
        work.say("it runs, so nothing is restarted; --force does it all the same")


def _goes_on(work: Work, host: Host) -> bool:
    """Whether the relay in place runs in all its roles, with the units and the policy that it needs, and the controller's
    tunnel to it stands, if it has one: to start it anew would mend nothing.
    """
    relay = _relay_of(work)
    tunnel = _tunnel(work, relay)
    if tunnel is not None and tunnel.state is not TunnelState.CONNECTED:
        return False
    if relay.egress_endpoint and host.run(f"[ -e {_POLICY} ]", check=False).code:
        return False
    return all(runs_as_it_should(host, RELAY, unit, text) for unit, text in _units(relay).items())


def _unstage(_work: Work, host: Host) -> None:
    unstage(host, RELAY)


def _certify(work: Work, host: Host) -> None:
    remember_key(work, host, RELAY)
    request = ca.IssueRelayCertificate(work.caller, _relay_of(work).id, get_csr(host, RELAY))
    issued: ca.IssuedRelayCertificate = work.change("certificate_authority", request)
    certificates = {"relay": issued.relay_crt, "fleet-ca": issued.fleet_ca_crt, "device-ca": issued.device_ca_crt}
    host.put_and_run([SentFile(f"/etc/relay/{name}.crt", crt, 0o644) for name, crt in certificates.items()])
    work.keep(serial=issued.serial)
    work.say(f"certificate {issued.serial} for {issued.hostname}")


def _decertify(work: Work, host: Host) -> None:
    if work.remembered.get("had_key") is False:
        host.run(
            "rm -f /etc/relay/*.crt /etc/relay/*.key /etc/relay/*.policy", what="removing the relay's certificate and keys"
        )


def _allow(work: Work, host: Host) -> None:
    """Where it may connect as a hop, from its first start on; what changes later is told to it over its own sessions
    (``coxswain.control_path.announce``). An existing relay program leaves the file alone.
    """
    relay = _relay_of(work)
    if not relay.egress_endpoint:
        return
    allowance = work.ask("servers", m.GetAllowance(relay.id))
    hostname = relay.hostname or host_of(relay.egress_endpoint)
    document = work.ask("certificate_authority", ca.SignTargetPolicy(hostname, tuple(sorted(allowance.targets))))
    own = f"chown -h {RELAY.account}: {_POLICY}"  # at once: whoever is cut off here leaves a relay that can start again
    host.put_and_run([SentFile(_POLICY, document, 0o600)], own, what="writing where the relay may connect")
    work.say(f"{len(allowance.targets)} places to which it may connect")


def _start(work: Work, host: Host) -> None:
    relay = _relay_of(work)
    work.remember(started=True)
    if relay.onion_endpoint:
        done = host.run(f"{RELAY.binary} onion-key --config-dir {RELAY.directory}", what="relay onion-key")
        key = _onion_key(host, done.stdout)
        work.change("servers", m.EditRelay(work.caller, relay.id, {"onion_pubkey": key}))
    end_units(work, host, *(unit for unit in _UNITS if unit not in _units(relay)))
    _restart(work, host)


def _stop(work: Work, host: Host) -> None:
    stop_units(work, host, RELAY, *_UNITS)  # whatever its roles are by now, and if it is in the inventory at all


def _switch(work: Work, host: Host) -> None:
    swap_in(work, host, RELAY)  # what is there is left alone, and its version known
    if not work.data.get("unchanged"):
        _restart(work, host)


def _switch_back(work: Work, host: Host) -> None:
    if work.data.get("unchanged"):
        return
    put_back(work, host, RELAY)
    stop_units(work, host, RELAY, *_UNITS)  # those of today; those from before start again, with what they were written for


def _restart(work: Work, host: Host) -> None:
    """With the units that are written today: those of a relay that was set up earlier made it root."""
    hand_over(host, RELAY)
    _allow(work, host)
    for unit, text in _units(_relay_of(work)).items():
        start_with(work, host, unit, lambda text=text: text)  # type: ignore[misc]


def _prove(work: Work, host: Host) -> None:
    """Each of its ports takes connections on the host itself."""
    relay = _relay_of(work)
    roles = ((_INGRESS, relay.endpoint), (_EGRESS, relay.egress_endpoint), (_ONION, relay.onion_endpoint))
    for unit, endpoint in roles:
        if endpoint:
            listens = f"ss -Hltn 'sport = :{_port(endpoint)}' | grep -q ."
            what = f"{unit} listening on port {_port(endpoint)}"
            wait_until_up(work, host, unit, lambda c=listens: host.run(c, check=False).code == 0, what, timeout=_UP_S)  # type: ignore[misc]
            work.say(what)
    changes = {"status": "active"}
    if "agent_version" in work.data:  # a renewal installs nothing, and leaves what is known
        changes["agent_version"] = str(work.data["agent_version"])
    work.change("servers", m.EditRelay(work.caller, relay.id, changes))
    if relay.endpoint:
        _see_tunnel(work, relay)


def _see_tunnel(work: Work, relay: Relay) -> None:
    """Waits a moment for the controller's tunnel. The relay is as it should be without it: what is between them may open
    later, and the controller dials until it does. So this is said, and is no failure.
    """
    seen: TunnelView | None = None

    def stands() -> bool:
        nonlocal seen
        seen = _tunnel(work, relay)
        return seen is not None and seen.state is TunnelState.CONNECTED

    try:
        work.wait_for(stands, f"the tunnel to {relay.endpoint}", timeout=_TUNNEL_S, every=0.1)
    except Exception:
        work.check()  # cancelled, or cut off: that counts
        why = "accounts.sync is off" if seen is None else seen.error
        work.say(f"the tunnel to {relay.endpoint} does not stand yet ({why or 'no answer'}); it will be dialled on")
    else:
        work.say(f"the tunnel to {relay.endpoint} stands")


def _tunnel(work: Work, relay: Relay) -> TunnelView | None:
    """The one that the controller holds, or dials, to the relay's endpoint; None: none."""
    views: tuple[TunnelView, ...] = work.ask("relays", DescribeTunnels())
    return next((view for view in views if (view.relay_id, view.endpoint) == (relay.id, relay.endpoint)), None)


def _mark_failed(work: Work) -> None:
    if work.data.get("relay_id"):
        work.change("servers", m.EditRelay(work.caller, str(work.data["relay_id"]), {"status": "error"}))


def _units(relay: Relay) -> dict[str, str]:
    """One for each of its roles, by name."""
    found: dict[str, str] = {}
    if relay.endpoint:
        found[_INGRESS] = ingress_unit(tunnel_port=_port(relay.endpoint))
    if relay.egress_endpoint:
        found[_EGRESS] = egress_unit(_port(relay.egress_endpoint))
    if relay.onion_endpoint:
        found[_ONION] = onion_unit(_port(relay.onion_endpoint))
    return found


def _port(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def _onion_key(host: Host, printed: str) -> str:
    text = printed.strip()
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise NodeMisbehaved(f"{host.name}: relay onion-key printed no X25519 key: {text[:80]!r}")
    return text
