"""``cox audit``: who changed what; and whether the log of it is what it was."""

from __future__ import annotations

import base64
import datetime as dt
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from coxswain.cli.client import Client
from coxswain.cli.files import written
from coxswain.cli.moments import Moment
from coxswain.cli.output import (
    ago,
    as_json_text,
    clean,
    client,
    config_option,
    confirm,
    facts,
    json_option,
    print_json,
    table,
    yes_option,
)
from coxswain.errors import InvalidInput
from coxswain.words import counted

__all__ = ["audit"]

_POLL_S = 1.0
_PAGE = 1_000
_VERIFY_S = 1_900.0
_BROKEN = 1
_MOST_CHECKPOINTS = 20


@click.group(invoke_without_command=True)
@config_option
@json_option
@click.option("--action", metavar="ACTION", help="Only this action, e.g. node.add.")
@click.option("--actor", metavar="NAME", help="Only of this actor.")
@click.option("--target", metavar="ID", help="Only about the thing with this id.")
@click.option("--result", type=click.Choice(["ok", "error"]), help="Only what succeeded, or what failed or was refused.")
@click.option("--since", type=Moment(), help="Not older: 30m, 24h, 7d, or a time.")
@click.option("--until", type=Moment(), help="Not younger.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C; with --json, a record a line.")
@click.pass_context
def audit(
    ctx: click.Context, /, config: str | None, limit: int, *, as_json: bool, follow: bool, **chosen: str | None
) -> None:
    """Who changed what; newest first."""
    if ctx.invoked_subcommand is not None:
        if follow or any(value is not None for value in chosen.values()):
            raise click.UsageError(f"filters go with: cox audit; not with: cox audit {ctx.invoked_subcommand}", ctx)
        ctx.default_map = {ctx.invoked_subcommand: {"config": config}}
        return
    asking = client(config)
    wanted = {("target_id" if name == "target" else name): value for name, value in chosen.items() if value is not None}
    found = asking.get(f"/api/audit?{urlencode(wanted | {'limit': limit})}")
    if follow:
        _follow(asking, wanted, found[::-1], as_json=as_json)
    elif as_json:
        print_json(found)
    elif not found:
        click.echo("There are no such records.")
    else:
        table(
            ["TIME", "ACTOR", "KIND", "ACTION", "TARGET", "RESULT", "ERROR", "SEQ"],
            [
                [_time(e), e["actor"], e["actor_kind"], e["action"], _target(e), e["result"], _short(e), e["seq"]]
                for e in found
            ],
        )


def _follow(asking: Client, wanted: dict[str, str], found: list[dict[str, Any]], *, as_json: bool) -> None:
    newest = asking.get("/api/audit/head")["size"]
    try:
        while True:
            for entry in found:
                click.echo(as_json_text(entry) if as_json else _line(entry))
                newest = max(newest, entry["seq"])
            sys.stdout.flush()
            time.sleep(_POLL_S)
            found = list(_since(asking, wanted, newest))[::-1]
    except KeyboardInterrupt:
        return


def _since(asking: Client, wanted: dict[str, str], newest: int) -> Iterator[dict[str, Any]]:
    """What is newer than ``newest``, newest first; all of it, however much came."""
    query = {**wanted, "above": newest, "limit": _PAGE}
    while True:
        page = asking.get(f"/api/audit?{urlencode(query)}")
        yield from page
        if len(page) < _PAGE:
            return
        query["after"] = page[-1]["seq"]


def _line(entry: dict[str, Any]) -> str:
    who = f"{entry['actor']} ({entry['actor_kind']})"
    what = f"{entry['action']}  {_target(entry)}  {entry['result']}  {_short(entry)}"
    text = f"{_time(entry)}  {entry['seq']}  {who}  {what}"
    return clean(text.rstrip())


def _time(entry: dict[str, Any]) -> str:
    return f"{entry['at'][:19]}Z"


def _target(entry: dict[str, Any]) -> str:
    return f"{entry['target_type']} {entry['target_id']}".strip()


def _short(entry: dict[str, Any]) -> str:
    return str(entry.get("error", ""))[:60]


@audit.command("head")
@config_option
@json_option
@click.option("--note", "only_note", is_flag=True, help="Print the checkpoint alone: what is to be kept elsewhere.")
@click.option("--qr/--no-qr", default=None, help="The checkpoint as a QR code, for a telephone (default: on a terminal).")
def head(config: str | None, *, as_json: bool, only_note: bool, qr: bool | None) -> None:
    """The newest signed checkpoint. Keep it where this machine cannot reach: it proves what the log was."""
    found = client(config).get("/api/audit/head")
    if as_json:
        print_json(found)
        return
    if only_note:
        click.echo(found["checkpoint"], nl=False)
        return
    facts(
        [
            ("log", found["origin"]),
            (
                "records",
                f"{found['size']}" + (f", payloads of the first {found['purged']} are gone" if found["purged"] else ""),
            ),
            ("root", found["root"]),
            ("public key", found["public_key"]),
            (
                "signed",
                f"{counted(found['checkpoint_size'], 'record')}, {ago(found['checkpoint_at'])} ago"
                if found["checkpoint"]
                else "",
            ),
        ]
    )
    if found["checkpoint"]:
        click.echo(f"\n{found['checkpoint']}")
        if qr if qr is not None else sys.stdout.isatty():
            import segno  # noqa: PLC0415 - only this draws

            segno.make_qr(found["checkpoint"], error="l").terminal(compact=True)
    for finding in found["findings"]:
        click.echo(f"cox: {clean(finding)}", err=True)
    if found["findings"]:
        sys.exit(_BROKEN)


@audit.command("verify")
@config_option
@json_option
@click.option(
    "--against", "files", multiple=True, metavar="FILE", help="A checkpoint that was kept elsewhere (-: standard input)."
)
def verify(config: str | None, files: tuple[str, ...], *, as_json: bool) -> None:
    """Check every record, and the whole against every checkpoint. Exit code 1 if anything is not what it was."""
    notes = [note for file in files for note in _notes(file)]
    query = urlencode([("against", base64.urlsafe_b64encode(note.encode()).decode()) for note in notes])
    found = client(config, timeout=_VERIFY_S).get("/api/audit/verify" + (f"?{query}" if query else ""))
    if as_json:
        print_json(found)
    elif found["ok"]:
        purged = f", {found['purged']} of them without payload" if found["purged"] else ""
        agreed = counted(found["checkpoints"], "checkpoint")
        click.echo(f"intact: {counted(found['size'], 'record')}{purged}, in agreement with {agreed}")
        for note in found["notes"]:
            click.echo(f"note: {clean(note)}")
    else:
        first = found["first_bad"]
        click.echo(f"cox: BROKEN{f' at record {first}' if first is not None else ''}", err=True)
        for finding in found["findings"]:
            click.echo(f"     {clean(finding)}", err=True)
        click.echo("     See docs/audit.md for what to do now.", err=True)
    if not found["ok"]:
        sys.exit(_BROKEN)


@audit.command("prove")
@config_option
@click.argument("seq", type=click.IntRange(min=1), required=False)
@click.option(
    "--from", "file", metavar="FILE", help="That the log begins with what this checkpoint signed (-: standard input)."
)
@click.option("--out", type=click.Path(dir_okay=False), help="Write it there (default: standard output).")
def prove(config: str | None, seq: int | None, file: str | None, out: str | None) -> None:
    """Export a proof: that record SEQ is in the log, or that the log extends an earlier checkpoint.

    Anybody can check it, with the public key and: cox audit check-proof
    """
    if (seq is None) == (file is None):
        raise InvalidInput("audit prove: needs either the number of a record, or --from with a checkpoint")
    if seq is not None:
        path = f"inclusion/{seq}"
    else:
        from coxswain.audit.checkpoint import peek  # noqa: PLC0415

        path = f"consistency/{peek(_notes(file or '-')[-1]).size}"
    proof = client(config).get(f"/api/audit/proof/{path}")
    with written(out) as target:
        target.write(json.dumps(proof, indent=1, ensure_ascii=False) + "\n")


@audit.command("check-proof")
@json_option
@click.argument("file", metavar="FILE")
@click.option("--key", metavar="KEY", help="The log's public key (see cox audit head), or a file with it; needed.")
@click.option("--against", "files", multiple=True, metavar="FILE", help="A checkpoint that was kept elsewhere.")
@click.option("--max-age", type=click.IntRange(min=1), metavar="SECONDS", help="Fail if its checkpoint is older than this.")
def check_proof(file: str, key: str | None, files: tuple[str, ...], max_age: int | None, *, as_json: bool) -> None:
    """Check a proof or an export. Needs neither a daemon nor a configuration. Exit code 1 if it does not hold.

    The key is yours to keep, as the checkpoints are: one that came with the proof shows only that somebody signed it.
    """
    if key is None:
        raise InvalidInput(
            "--key: without the public key of the log nothing tells who signed this",
            remedy="On the controller it is shown by: cox audit head",
        )
    from coxswain.audit.note import BadNote, Verifier  # noqa: PLC0415 - cryptography takes time to import
    from coxswain.audit.offline import check  # noqa: PLC0415

    verifier = Verifier.parse(_read(key) if "+" not in key else key)
    against = [note for name in files for note in _notes(name)]
    try:
        found = check(_read(file), verifier, against)
        _check_age(found.head.at, max_age)
    except BadNote as error:
        if as_json:
            print_json({"ok": False, "reason": str(error)})
        else:
            click.echo(f"cox: it does not hold: {clean(str(error))}", err=True)
        sys.exit(_BROKEN)
    if as_json:
        facts_ = {"ok": True, "what": found.what, "origin": found.head.origin, "size": found.head.size}
        print_json(facts_ | {"signed_at": _stamp(found.head.at), "records": found.records, "purged": found.purged})
    else:
        click.echo(f"it holds: {found.what}")
        click.echo(f"signed by {found.head.origin}, {ago(_stamp(found.head.at))} ago")


def _check_age(at: int | None, max_age: int | None) -> None:
    from coxswain.audit.note import BadNote  # noqa: PLC0415

    if max_age is not None and (at is None or time.time() - at > max_age):
        raise BadNote(f"its checkpoint is {ago(_stamp(at))} old: the log was stopped, or this is an old export")


@audit.command("export")
@config_option
@click.option("--out", type=click.Path(dir_okay=False), help="Write it there (default: standard output).")
def export(config: str | None, out: str | None) -> None:
    """The whole log with its checkpoints, a JSON object a line; cox audit check-proof checks it anywhere."""
    asking, after = client(config), 1
    with written(out) as file:
        while after is not None:
            page = asking.get(f"/api/audit/export?after={after}")
            file.writelines(f"{line}\n" for line in page["lines"])
            after = page["next"]


@audit.command("accept")
@config_option
@json_option
@click.option("--reason", required=True, metavar="TEXT", help="Why the log does not extend its checkpoints; it is recorded.")
@yes_option
def accept(config: str | None, reason: str, *, yes: bool, as_json: bool) -> None:
    """Let a log that does not extend its checkpoints go on, under a new name and key.

    For a database that was put back by hand, and nothing else: checkpoints of the old name that the log does not extend will
    never agree with it again.
    """
    asking = client(config)
    if not yes:
        for finding in asking.get("/api/audit/head")["findings"]:
            click.echo(clean(finding), err=True)
        confirm("Go on under a new name?")
    found = asking.post("/api/audit/accept", {"reason": reason})
    if as_json:
        print_json(found)
    else:
        click.echo(f"record {found['seq']} says so. Keep the new key and checkpoint: cox audit head")


def _notes(file: str) -> list[str]:
    from coxswain.audit.checkpoint_file import split_notes  # noqa: PLC0415

    found = list(split_notes(_read(file)))
    if not found:
        raise InvalidInput(f"{file}: holds no checkpoint", remedy="Make one with: cox audit head --note > FILE")
    return found[-_MOST_CHECKPOINTS:]


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{file}: is no text") from None
    except OSError as error:  # and not exit code 1, which says that something is not what it was
        raise InvalidInput(f"{file}: cannot be read: {error.strerror or error}") from None


def _stamp(at: int | None) -> str | None:
    return None if at is None else dt.datetime.fromtimestamp(at, dt.UTC).isoformat()
