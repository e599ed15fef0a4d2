"""``cox``: the operator's command line. Each command's module is imported only when that command runs."""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from coxswain import __version__
from coxswain.errors import CoxswainError, InvalidInput

__all__ = ["LazyGroup", "cli"]


class LazyGroup(click.Group):
    """A group whose commands are named here and imported when needed: ``name`` to ``module:attribute`` and its help."""

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy: dict[str, tuple[str, str]] = dict(lazy or {})

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return [*self.lazy, *self.commands]

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = _ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in self.lazy:
            return self.commands.get(cmd_name)
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        rows = [(name, self.lazy[name][1]) for name in self.lazy]
        rows += [(name, command.get_short_help_str()) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        del ctx

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """A mistyped command is answered with the nearest one, in the words of click, which sees no lazy ones."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            import difflib  # noqa: PLC0415

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            raise click.UsageError(f"No such command {name!r}.{f' Did you mean {near[0]!r}?' if near else ''}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CoxswainError as error:
            from coxswain.cli.output import fail  # noqa: PLC0415

            fail(error)
        except UnicodeEncodeError as error:
            if error.encoding != "utf-8":
                raise
            from coxswain.cli.output import fail  # noqa: PLC0415

            fail(InvalidInput(f"{error.object[:100]!r} holds bytes that are no text", remedy="Type it in UTF-8."))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """``--help`` prints before there is anything to invoke, so what the system says no to is told here."""
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # but for a closed pipe: click knows what to do
            from coxswain.cli.files import explained, give_up_output  # noqa: PLC0415
            from coxswain.cli.output import fail  # noqa: PLC0415

            give_up_output()
            fail(explained(error))


_ALIASES = {"control-path": "control-paths", "cpaths": "control-paths"}
"""Names of existing controllers (management-plane.md 2)."""

_COMMANDS = {
    "init": ("coxswain.cli.init:init", "Make a configuration, a state directory and a CA."),
    "status": ("coxswain.cli.queries:status", "How the fleet and the daemon are."),
    "tree": ("coxswain.cli.queries:tree", "The service tree, live: states, restarts, mailboxes, failures."),
    "nodes": ("coxswain.cli.nodes:nodes", "Add, enrol, show, plan, push, disable and remove nodes."),
    "users": ("coxswain.cli.users:users", "Add, show, edit, suspend, resume and remove users."),
    "devices": ("coxswain.cli.devices:devices", "Add, provision, suspend, revoke and remove devices."),
    "profiles": ("coxswain.cli.profiles:profiles", "What devices can connect to; export it for a client."),
    "profile": ("coxswain.cli.profiles:profile", "Export what a user's device is given, sealed."),
    "enroll": ("coxswain.cli.invites:enroll", "Make a join link for a user, with its QR code."),
    "invites": ("coxswain.cli.invites:invites", "List and revoke join links."),
    "paths": ("coxswain.cli.paths:paths", "Paths over two or three nodes, and who goes over which."),
    "plan": ("coxswain.cli.declare:plan", "What cox apply would change."),
    "apply": ("coxswain.cli.declare:apply", "Make the fleet what a file says."),
    "export": ("coxswain.cli.declare:export", "Write the present fleet as a file."),
    "rollout": ("coxswain.cli.rollout:rollout", "Upgrade many agents: canaries first, then batches."),
    "servers": ("coxswain.cli.servers:servers", "Onboard, list, trust and remove machines."),
    "alerts": ("coxswain.cli.alerts:alerts", "What the rules found; acknowledge, resolve, snooze."),
    "relays": ("coxswain.cli.relays:relays", "Onboard, list, upgrade and remove relays."),
    "control-paths": ("coxswain.cli.control_paths:control_paths", "The relays by which the controller reaches its nodes."),
    "ssh-key": ("coxswain.cli.servers:ssh_key", "Print the controller's public SSH key."),
    "operations": ("coxswain.cli.operations:operations", "Show, follow, retry and cancel changes of several steps."),
    "sessions": ("coxswain.cli.sessions:sessions", "Who is, and was, connected, and what they moved."),
    "removed": ("coxswain.cli.removed:removed", "What users, devices and nodes were called that are gone."),
    "geoip": ("coxswain.cli.geoip:geoip", "The GeoIP database: show and update it."),
    "watch": ("coxswain.cli.watch:watch", "The fleet, live."),
    "tokens": ("coxswain.cli.tokens:tokens", "Create, list and revoke API tokens."),
    "admins": ("coxswain.cli.admins:admins", "Who may log in to the dashboard."),
    "ca": ("coxswain.cli.queries:ca", "The certificate authority."),
    "audit": ("coxswain.cli.audit:audit", "Who changed what, and whether the record of it is what it was."),
    "backup": ("coxswain.cli.backup:backup", "Create, verify and restore backups."),
    "doctor": ("coxswain.cli.doctor:doctor", "Check an installation, and say what to do."),
    "config": ("coxswain.cli.config:config", "Check and show the configuration."),
    "version": ("coxswain.cli.config:version", "Print the version."),
    "completion": ("coxswain.cli.config:completion", "Print a completion script for bash, zsh or fish."),
}


def _misplaced(ctx: click.Context, _option: click.Parameter, path: str | None) -> None:
    if path is not None:
        raise click.UsageError(f"--config goes after the command: cox COMMAND --config {path}", ctx)


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
@click.option("--url", metavar="URL", help="A daemon elsewhere, e.g. https://cox.example (COX_URL).")
@click.option(
    "--token-file", metavar="FILE", help="The API token for it, in a file of mode 0600 (COX_TOKEN, COX_TOKEN_FILE)."
)
@click.option("--token", metavar="TOKEN", help="The token itself; every user of this machine can see it there.")
@click.option("--config", hidden=True, expose_value=False, callback=_misplaced)
@click.option("--ca-cert", metavar="FILE", help="The CA of its certificate, if it is not a public one (COX_CA_CERT).")
@click.pass_context
def cli(ctx: click.Context, url: str | None, token_file: str | None, token: str | None, ca_cert: str | None) -> None:
    """The private, always-on controller of a self-hosted VPN fleet."""
    given = {"--url": url, "--token-file": token_file, "--token": token, "--ca-cert": ca_cert}
    for option, value in given.items():
        if value == "":  # as of a variable that is not set: another daemon would be meant
            raise click.UsageError(f"{option} is empty; say what is meant, or leave it out", ctx)
    if not (url or token_file or token or ca_cert):
        return  # remote's imports cost more than most commands
    from coxswain.cli.remote import Remote  # noqa: PLC0415

    if not url and not os.environ.get("COX_URL"):
        raise click.UsageError("--token-file, --token and --ca-cert go with --url (or COX_URL)", ctx)
    if token:
        click.echo("cox: a token on the command line can be seen by every user (ps); better use COX_TOKEN_FILE", err=True)
    ctx.obj = Remote(url or os.environ["COX_URL"], token or "", token_file or "", ca_cert or "")
