"""``cox backup``: state, keys and audit chain in one encrypted file; on the daemon's own machine."""

from __future__ import annotations

import datetime as dt
import os
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coxswain.cli.client import config_path
from coxswain.cli.output import clean, config_option, duration, facts, json_option, only_here, print_json, size
from coxswain.errors import InvalidInput, LoosePermissions
from coxswain.words import counted

if TYPE_CHECKING:
    from coxswain.backup.envelope import BackupSecret

__all__ = ["backup"]

_SHOW_EVERY_S = 0.5


@click.group()
def backup() -> None:
    """Create, verify and restore backups: state, keys and audit chain in one encrypted file."""


_passphrase_option = click.option(
    "--passphrase-file",
    metavar="FILE",
    help="The passphrase, in a file of mode 0600 (COX_BACKUP_PASSPHRASE_FILE, COX_BACKUP_PASSPHRASE). Asked for otherwise.",
)
_key_option = click.option("--key-file", metavar="FILE", help="A key instead of a passphrase: 64 hex digits, mode 0600.")


@backup.command("create")
@config_option
@json_option
@click.option("--out", metavar="FILE", help="Default: coxswain-<time>.coxbak here.")
@_passphrase_option
@_key_option
@click.option("--fast", is_flag=True, help="Take no care of the daemon: for one that is stopped, or a quiet hour.")
@click.option("--make-key", is_flag=True, help="Write a fresh key to --key-file if there is none.")
def create_(
    config: str | None,
    out: str | None,
    passphrase_file: str | None,
    key_file: str | None,
    *,
    make_key: bool,
    fast: bool,
    as_json: bool,
) -> None:
    """Make a backup. The daemon may run; it is not disturbed."""
    only_here("backup create")
    from coxswain.backup.create import Pace, create  # noqa: PLC0415 - the rest is only needed here
    from coxswain.config import load  # noqa: PLC0415

    loaded = load(config_path(config))
    now = time.time()
    stamp = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    target = Path(out or f"coxswain-{stamp}.coxbak").absolute()
    if make_key:
        if key_file is None:
            raise click.UsageError("--make-key goes with --key-file")
        from coxswain.keyring import make_key_file  # noqa: PLC0415

        if not target.parent.is_dir():  # before there is a key for a backup that is not
            raise InvalidInput(f"out: {target.parent} is no directory in which files can be made")
        make_key_file(Path(key_file))
    secret = _secret(passphrase_file, key_file, confirm=True)
    if not fast:
        _be_humble()
    pace = None if fast else Pace()
    made = create(loaded, target, secret, now=now, progress=_Progress(quiet=as_json), pace=pace)
    _leave_record(loaded, made.id, made.manifest, made.size)
    if as_json:
        print_json({"path": str(made.path), "size": made.size, "plain_bytes": made.plain_bytes, "manifest": made.manifest})
        return
    facts([("backup", made.path), ("size", f"{size(made.size)} of {size(made.plain_bytes)}"), *_facts(made.manifest)])
    click.echo("\nKeep it, and its passphrase or key, apart from each other and from this machine; and copies of")
    click.echo("revocations.log and of the audit checkpoints, which tell a restore what happened since.")


@backup.command("verify")
@json_option
@click.argument("file")
@_passphrase_option
@_key_option
@click.option(
    "--full",
    is_flag=True,
    help="Look into database and audit log, too (SQLite); takes room for them in $TMPDIR.",
)
def verify_(file: str, passphrase_file: str | None, key_file: str | None, *, full: bool, as_json: bool) -> None:
    """Read a backup to its end: is it whole, and does the passphrase open it?"""
    from coxswain.backup.restore import verify  # noqa: PLC0415

    secret = _secret(passphrase_file, key_file, confirm=False)
    if full:
        with tempfile.TemporaryDirectory(prefix="cox-verify-") as scratch:
            found = verify(Path(file), secret, scratch=Path(scratch))
    else:
        found = verify(Path(file), secret)
    if as_json:
        print_json(
            {
                "ok": not found.problems,
                "members": found.members,
                "plain_bytes": found.plain_bytes,
                "problems": list(found.problems),
                "manifest": found.manifest,
            }
        )
    else:
        facts([("backup", f"{file}: whole, {found.members} members, {size(found.plain_bytes)}"), *_facts(found.manifest)])
        for problem in found.problems:
            click.echo(f"! {clean(problem)}")
    raise SystemExit(1 if found.problems else 0)


@backup.command("restore")
@config_option
@json_option
@click.argument("file")
@_passphrase_option
@_key_option
@click.option(
    "--beside",
    metavar="DIR",
    multiple=True,
    help="A directory with the newest revocations.log and audit checkpoints that there are; may be given again. "
    "The directory of the backup is looked into in any case.",
)
@click.option("--force", is_flag=True, help="Replace a state that is there; its directory is kept aside.")
def restore_(
    config: str | None,
    file: str,
    passphrase_file: str | None,
    key_file: str | None,
    beside: tuple[str, ...],
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Put a backup back. What was revoked since it was made stays revoked, as far as the files beside it tell."""
    only_here("backup restore")
    from coxswain.audit import local_caller  # noqa: PLC0415
    from coxswain.backup.restore import Order, restore  # noqa: PLC0415

    source = Path(file).absolute()
    directories = [Path(name).absolute() for name in beside]
    for directory in directories:
        if not directory.is_dir():
            raise InvalidInput(f"beside: {directory} is no directory")
    os.umask(0o077)
    done = restore(
        Order(
            source,
            _secret(passphrase_file, key_file, confirm=False),
            config_path(config).absolute(),
            local_caller(),
            time.time(),
            dict(os.environ),
            (*directories, source.parent),
            force,
        )
    )
    if as_json:
        print_json(
            {
                "manifest": done.manifest,
                "state_dir": str(done.config.state_dir),
                "revoked_again": list(done.revoked.effects),
                "audit_seq": done.seq,
                "replaced": None if done.replaced is None else str(done.replaced),
                "notes": list(done.notes),
            }
        )
        return
    facts(
        [
            *_facts(done.manifest),
            ("configuration", done.config.path),
            ("state", done.config.state_dir),
            ("replaced state", done.replaced),
            (
                "revoked again",
                f"{counted(len(done.revoked.effects), 'thing')}, by {counted(len(done.revoked.entries), 'record')} since",
            ),
            ("audit record", done.seq),
        ]
    )
    for effect in done.revoked.effects:
        click.echo(f"- {clean(effect)}")
    for note in done.notes:
        click.echo(f"! {clean(note)}")
    option = "" if config is None else f" --config {config}"
    click.echo(f"\nStart the daemon with: cox serve{option}\nThen look at it with:  cox doctor{option}")


class _Progress:
    """On a terminal, how far it is."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._started = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._shown or (now - self._last < _SHOW_EVERY_S and done < total):
            return
        self._last = now
        text = f"{size(done)} of about {size(max(done, total))}, {duration(now - self._started)}"
        click.echo(f"\r{text.ljust(50)}", err=True, nl=done >= total)


def _facts(manifest: dict[str, Any]) -> list[tuple[str, Any]]:
    made = dt.datetime.fromtimestamp(manifest["created_at"], dt.UTC).isoformat(timespec="seconds")
    counts, source = manifest["counts"], manifest["key_source"]
    return [
        ("id", manifest["id"]),
        ("made", f"{made} on {manifest['host']} by coxswain {manifest['version']}"),
        (
            "holds",
            ", ".join(counted(counts[f"{what}s"], what) for what in ("node", "user", "device")) + f" ({manifest['store']})",
        ),
        ("audit log", f"{counted(manifest['audit']['size'], 'record')}, head {manifest['audit']['row_hash'][:16] or '-'}"),
        ("CA key", "inside" if source == "file" else f"not inside: it comes from a {source}"),
    ]


def _secret(passphrase_file: str | None, key_file: str | None, *, confirm: bool) -> BackupSecret:
    """The options go first, then the environment, then the terminal."""
    from coxswain.backup.envelope import BackupSecret, passphrase  # noqa: PLC0415

    if passphrase_file is not None and key_file is not None:
        raise click.UsageError("--passphrase-file and --key-file exclude each other")
    if key_file is not None:
        raw = _private(Path(key_file), "key-file")
        try:
            key = bytes.fromhex(raw.decode("ascii").strip())
        except ValueError:
            key = b""
        if len(key) != 32:
            raise InvalidInput(f"key-file: {key_file} holds no key: 64 hex digits are needed")
        return BackupSecret(key, is_passphrase=False)
    path = passphrase_file or os.environ.get("COX_BACKUP_PASSPHRASE_FILE")
    if path:
        return passphrase(_private(Path(path), "passphrase-file"))
    if os.environ.get("COX_BACKUP_PASSPHRASE"):
        return passphrase(os.environ["COX_BACKUP_PASSPHRASE"].encode("utf-8", "surrogateescape"))
    if not sys.stdin.isatty():
        raise InvalidInput(
            "passphrase: there is none, and no terminal to ask for it",
            remedy="Give --passphrase-file FILE, or --key-file FILE.",
        )
    return passphrase(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True).encode())


def _private(path: Path, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(4096)
    except OSError as error:
        raise InvalidInput(f"{option}: {path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise LoosePermissions(f"{path} can be read by others (mode {mode:04o})", remedy=f"chmod 600 {path}")
    return raw


def _be_humble() -> None:
    """The daemon goes first, on the processor and, where the kernel's scheduler looks at that, on the disk."""
    os.nice(19 - os.nice(0))
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _leave_record(config: Any, backup_id: str, manifest: dict[str, Any], file_size: int) -> None:
    """In the outbox; a daemon that runs takes it into the log within seconds, one that does not at its next start."""
    from coxswain.audit import local_caller, record  # noqa: PLC0415
    from coxswain.store import Durability, open_store  # noqa: PLC0415

    detail = {"size": file_size, "audit_size": manifest["audit"]["size"]}
    store = open_store(config.database)
    try:
        with store.write(Durability.ACKNOWLEDGED) as tx:
            record(tx, local_caller(), "backup.create", ("backup", backup_id), detail, now=time.time())
    finally:
        store.close()
