"""How commands come to a machine that they work on over SSH: ``servers add``, and ``nodes add`` and ``relays add``, which
take one in that is not known yet (management-plane.md 2).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from coxswain.cli.client import Client, RemoteError
from coxswain.cli.operations import begin
from coxswain.cli.output import clean, client, confirm
from coxswain.errors import InvalidInput, Refused

__all__ = ["COMPARE", "Login", "login_options", "onboard", "own_option", "reached"]

_OWN = (
    "{} is the machine that the controller itself runs on. Packages, settings of its network and the service are installed "
    "here, at once and without a login. Go on?"
)
COMPARE = "Compare it with what this prints on the host's console: ssh-keygen -lf /etc/ssh/ssh_host_{}_key.pub"


_NODE_FAILED = 8
"""As an exit code (``coxswain.errors.DOORS``)."""


@dataclass(frozen=True, slots=True)
class Login:
    """Empty and 0 are what the configuration says. ``host_key``: the fingerprint that the host must show."""

    user: str = ""
    port: int = 0
    host_key: str = ""
    accept_new_host_key: bool = False

    @property
    def given(self) -> bool:
        return self != Login()


def login_options(command: Any) -> Any:
    """The options of which ``Login`` is made."""
    for option in (
        click.option("--accept-new-host-key", is_flag=True, help="Trust whatever key a HOST shows that is not known yet."),
        click.option("--host-key", default="", metavar="SHA256:…", help="The fingerprint that such a HOST must show."),
        click.option("--port", default=0, type=click.IntRange(0, 65_535), help="Its SSH port; default: node.ssh_port."),
        click.option("--user", default="", help="Who to log in as there, by key (cox ssh-key); default: node.ssh_user."),
    ):
        command = option(command)
    return command


own_option = click.option("--yes", is_flag=True, help="Do not ask, even if it is the controller's own machine.")


def reached(
    config: str | None,
    host: str,
    server: str,
    login: Login,
    *,
    region: str,
    via: str,
    yes: bool,
    as_json: bool,
    check_new: Callable[[Client], object],
) -> str:
    """The machine that ``HOST`` or ``--server`` names. A HOST that is not known yet is taken in first, with the controller's
    key, as ``login`` says or, for what it leaves open, the configuration, and not before its host key is given or confirmed.

    ``yes``: nobody is asked whether the controller's own machine is meant; nor is a script. ``check_new``: raises what would
    be refused once a HOST was taken in.
    """
    if not (server or host):
        raise InvalidInput("host: a machine is needed", remedy="Onboard one first: cox servers add ADDRESS")
    if server and login.given:
        raise InvalidInput("server: this machine is known, so it takes no --user, --port, --host-key")
    asking = client(config)
    known = next((s for s in asking.get("/api/servers") if _is_meant(s, server or host, login.port)), None)
    if known is not None and known["is_self"] and not yes:
        confirm(_OWN.format(known["name"]), scripts_may=True)
    if server:
        return server
    if known is None and not host.startswith("srv_"):
        check_new(asking)
        click.echo(f"{clean(host)} is none of cox servers list: it has to be taken in first, by key.", err=True)
        try:
            made = onboard(config, host, login, region=region, via=via, wait=True, as_json=as_json)
        except RemoteError as error:
            raise _no_machine(host, error) from None
        return str(made["id"])
    if known is None or not login.given:
        return host  # the daemon says who that is, or that it is nobody
    for name, wanted, there in (
        ("user", login.user, known["ssh_user"]),
        ("port", login.port, known["ssh_port"]),
        ("host-key", login.host_key, known["host_key"]),
    ):
        if wanted and wanted != there:
            raise InvalidInput(
                f"{name}: {host} is known with {there}, not {wanted}",
                remedy=f"Leave --{name} out, or take the machine in anew: cox servers rm, cox servers add",
            )
    return str(known["id"])


def _no_machine(host: str, error: RemoteError) -> RemoteError:
    """A single word that nobody answers to may have been meant as the name of what is to be set up."""
    if error.exit_code != _NODE_FAILED or "." in host or ":" in host:
        return error
    remedy = (
        f"If {host} is to be the name, say where it is to be, too: --server SERVER --name {host}; or of a node that is set "
        f"up by hand: cox nodes add {host} --addr HOST"
    )
    both = f"{error.remedy} {remedy}".strip()
    return RemoteError(str(error), status=error.status, exit_code=error.exit_code, remedy=both)


def _is_meant(server: dict[str, Any], host: str, port: int) -> bool:
    """Several machines may be behind one address, each at a port of its own."""
    return host in (server["id"], server["name"]) or (host == server["ssh_host"] and port in (0, server["ssh_port"]))


def onboard(
    config: str | None,
    host: str,
    login: Login,
    *,
    name: str = "",
    region: str = "",
    via: str = "",
    secret: Callable[[], str] | None = None,
    wait: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Takes a machine in and returns it as the API shows it. ``secret`` gives a one-time password; None: the controller's
    key is there already. Without ``wait``, the command ends here.
    """
    asking = client(config)
    where: dict[str, Any] = {"ssh_host": host} | ({"ssh_port": login.port} if login.port else {})
    if via:
        where["route"] = [relay.strip() for relay in via.split(",")]
    host_key = login.host_key
    if not host_key and not login.accept_new_host_key:
        host_key = _confirmed(asking.post("/api/servers/host-key", where), host)
    body = where | {
        "host_key": host_key,
        "accept_new_host_key": login.accept_new_host_key,
        "name": name,
        "region": region,
        "ssh_user": login.user,
        "password": secret() if secret else "",
    }
    done = begin(config, "/api/servers", {k: v for k, v in body.items() if v}, wait=wait, as_json=as_json)
    found: dict[str, Any] = next(s for s in asking.get("/api/servers") if s["id"] == done["data"]["server_id"])
    return found


def _confirmed(shown: dict[str, Any], host: str) -> str:
    """Asks the operator; a key that is pinned already needs no question."""
    fingerprint: str = shown["host_key"]
    if shown["known"]:
        return fingerprint
    kind = shown["type"].removeprefix("ssh-").partition("-")[0]
    click.echo(f"{clean(host)} shows the host key {clean(fingerprint)} ({clean(shown['type'])}).", err=True)
    click.echo(COMPARE.format(kind), err=True)
    if not sys.stdin.isatty():
        raise Refused(
            f"{host}: nobody is there to confirm its host key {fingerprint}",
            remedy=f"Say --host-key {fingerprint} if it is the right one, or --accept-new-host-key.",
        )
    click.confirm("Is it the same?", abort=True, err=True)
    return fingerprint
