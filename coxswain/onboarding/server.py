"""``server.add``: a machine is reached, recognised and let us in for good (fleet-model.md 3.3)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from coxswain.errors import CoxswainError, NodeFailure, NodeRefused, Refused
from coxswain.inventory import check_name, check_region
from coxswain.messages import servers as m
from coxswain.onboarding.access import KEY, facts_of, login_with_key
from coxswain.onboarding.beforehand import check_server
from coxswain.onboarding.facts import check_room
from coxswain.operations import Kind, Step, Work
from coxswain.servers import Server, check_ssh_host, check_ssh_port, check_ssh_user
from coxswain.ssh import Dialer, HostKeyChanged, SshHost, connect, fingerprint_of, see_host_key
from coxswain.ssh.connection import Login, Target
from coxswain.ssh.hostkey import check_fingerprint

__all__ = ["server_add"]

_INSTALL = """set -e; umask 077; mkdir -p ~/.ssh; chmod 700 ~/.ssh; f=~/.ssh/authorized_keys; touch "$f"; chmod 600 "$f"
if grep -qxF {line} "$f"; then echo there; exit 0; fi
[ -z "$(tail -c 1 "$f")" ] || echo >> "$f"
printf '%s\\n' {line} >> "$f"; sync "$f" 2>/dev/null || true; echo added"""

_REMOVE = """f=~/.ssh/authorized_keys; [ -e "$f" ] || exit 0; t="$f.cox"; umask 077
grep -vxF {line} "$f" > "$t" || [ $? -eq 1 ]; mv -f "$t" "$f" """


def server_add(dialer: Dialer) -> Kind:
    """Params: ``ssh_host``, ``ssh_port``, ``ssh_user``, ``name``, ``region``, ``host_key`` (a fingerprint that the
    operator has confirmed), ``accept_new_host_key``, ``route``, ``with_password``. Secret: ``password``.
    """

    def target(work: Work) -> Target:
        p = work.params
        return Target(
            p["ssh_host"], p["ssh_port"], p["ssh_user"], str(work.data.get("host_key", "")), tuple(p.get("route") or ())
        )

    def recognise(work: Work) -> None:
        """Nothing is sent that only the host may see: the connection ends after the key exchange."""
        at = target(work)
        server = _known(work)
        check_server(work.ask, work.params.get("name", ""), at.host, at.port)
        pinned = server.ssh_host_key if server is not None else ""
        shown = see_host_key(Target(at.host, at.port, at.user, pinned, at.route), dialer)
        seen = fingerprint_of(shown)
        work.say(f"{at.name} shows {shown.split()[0]} {seen}")
        if server is None:
            _tell_of_twins(work, shown)
        if server is not None and pinned and shown != pinned:
            work.tell("servers", m.HostKeyOffered(server.id, shown))
            raise HostKeyChanged(at.name, pinned, shown)
        confirmed = work.params.get("host_key", "")
        if confirmed and confirmed != seen:
            raise Refused(
                f"{at.name} shows the host key {seen}, not {confirmed}; nothing was sent to it",
                remedy="Compare with ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on the host's console.",
            )
        if not pinned and not confirmed and not work.params.get("accept_new_host_key"):
            raise Refused(
                f"{at.name} shows the host key {seen}, which nobody has confirmed; nothing was sent to it",
                remedy=f"Compare it on the host's console, then say --host-key {seen}, or --accept-new-host-key.",
            )
        work.keep(host_key=shown)

    def let_in(work: Work) -> None:
        if work.params.get("with_password"):
            _with_password(work, target(work), dialer)
        at = target(work)
        try:
            host = login_with_key(work, at, dialer)
        except NodeFailure as error:
            after = ", although that was just installed" if work.params.get("with_password") else ""
            raise type(error)(f"the login with the controller's key failed{after}: {error}", remedy=error.remedy) from None
        work.shared(KEY, lambda: host)

    def lock_out(work: Work) -> None:
        if not work.remembered.get("adding"):
            return
        _take_out(work, target(work), dialer)

    def look(work: Work) -> None:
        host: SshHost = work.shared(KEY, lambda: login_with_key(work, target(work), dialer))
        facts = facts_of(host)
        work.say(f"{facts.get('os_name') or facts.get('os')}, {facts['arch']}, kernel {facts.get('kernel')}")
        check_room(host.name, facts)
        work.keep(facts=facts)

    def take_in(work: Work) -> None:
        p = work.params
        server: Server = work.change(
            "servers",
            m.PutServer(
                caller=work.caller,
                ssh_host=p["ssh_host"],
                ssh_port=p["ssh_port"],
                ssh_user=p["ssh_user"],
                ssh_host_key=str(work.data["host_key"]),
                name=p.get("name", ""),
                region=p.get("region", ""),
                facts=work.data["facts"],
            ),
        )
        work.keep(server_id=server.id)

    steps = (
        Step("host-key", "recognise the host by its key", recognise, deadline_s=45),
        Step(
            "login", "log in with the controller's key", lambda work: _as_recognised(work, let_in), lock_out, deadline_s=120
        ),
        Step("facts", "look at what the host is", look, deadline_s=45),
        Step("inventory", "take it into the inventory", take_in, deadline_s=30),
    )
    return Kind(
        name="server.add",
        steps=lambda _params: steps,
        check=_check,
        target=lambda params, data: ("server", str(data.get("server_id") or params["ssh_host"])),
        locks=lambda params: (f"host:{params['ssh_host']}:{params['ssh_port']}",),
        overtaken_by=("server.add",),
    )


def _check(params: Mapping[str, Any]) -> dict[str, Any]:
    host_key, name = (str(params.get(key) or "") for key in ("host_key", "name"))
    return {
        "ssh_host": check_ssh_host(str(params.get("ssh_host") or "")),
        "ssh_port": check_ssh_port(int(params.get("ssh_port") or 0)),
        "ssh_user": check_ssh_user(str(params.get("ssh_user") or "root")),
        "name": name and check_name(name),
        "region": check_region(str(params.get("region") or "")),
        "host_key": check_fingerprint(host_key) if host_key else "",
        "accept_new_host_key": bool(params.get("accept_new_host_key")),
        "route": list(params.get("route") or ()),
        "with_password": bool(params.get("with_password")),
    }


def _tell_of_twins(work: Work, shown: str) -> None:
    """Machines that are in the inventory with this very key. They may be clones, so nothing is refused."""
    listed: list[Server] = work.ask("servers", m.ListServers())
    for other in listed:
        if other.ssh_host_key == shown:
            work.say(
                f"! {other.name} at {other.ssh_host} has the same key: a clone of this machine, or this machine itself, "
                "whose agent would be taken from its node there"
            )


def _known(work: Work) -> Server | None:
    found: Server | None = work.ask("servers", m.FindServer(work.params["ssh_host"], work.params["ssh_port"]))
    return found


def _as_recognised(work: Work, let_in: Callable[[Work], None]) -> None:
    """A host that has another key since it was recognised may be in no inventory yet, where it could be trusted."""
    try:
        let_in(work)
    except HostKeyChanged as changed:
        server = _known(work)
        if server is None:
            remedy = f"If it was reinstalled meanwhile, begin anew: cox servers add {work.params['ssh_host']}"
            raise Refused(str(changed), remedy=remedy) from None
        work.tell("servers", m.HostKeyOffered(server.id, changed.offered))
        raise


def _with_password(work: Work, at: Target, dialer: Dialer) -> None:
    """The key of ``at`` is checked before the password is sent. Used once."""
    if work.remembered.get("installed"):
        return  # an earlier attempt got this far; the password is not needed again
    password = work.secret("password")
    try:
        host = work.hold(connect(at, Login(password=password), dialer, hold=work.hold))
    except NodeFailure as error:
        raise type(error)(f"the login with the password failed: {error}", remedy=error.remedy) from None
    try:
        line = _line(work)
        before = bool(work.remembered.get("adding"))  # an attempt that was interrupted may have added it
        work.remember(adding=True)
        done = host.ask(_INSTALL.format(line=shlex.quote(line)), what="installing the controller's key", deadline=30)
        if done.code:
            raise NodeFailure(f"{at.name}: installing the controller's key failed: {done.printed[:300]}")
        if done.stdout.strip() == "there" and not before:
            work.remember(adding=False)
        work.remember(installed=True)
        work.say("the controller's key is in authorized_keys; the password is not needed any more")
    except CoxswainError:
        host.close()
        raise
    host.close()


def _take_out(work: Work, at: Target, dialer: Dialer) -> None:
    try:
        host = login_with_key(work, at, dialer)
    except NodeRefused as error:
        work.say(f"{error}: so its authorized_keys is left as it is; if the controller's key is there, take it out by hand")
        return
    work.hold(host)
    host.ask(_REMOVE.format(line=shlex.quote(_line(work))), what="removing the controller's key", deadline=60)
    work.say("the controller's key is taken out of authorized_keys again")


def _line(work: Work) -> str:
    line: str = work.ask("servers", m.GetSshIdentity()).public_line
    return line
