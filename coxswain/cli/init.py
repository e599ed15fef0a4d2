"""``cox init``: a configuration, a state directory, a sealed CA. All of it, or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coxswain.cli.client import config_path
from coxswain.cli.output import config_option, facts, json_option, print_json
from coxswain.errors import AlreadyExists, InvalidInput

if TYPE_CHECKING:
    from coxswain.config import Config
    from coxswain.store import Store

__all__ = ["init"]

_STATE_FILES = ("app.db", "app.db-wal", "app.db-shm", "app.db.lock", "daemon.pid")


@click.command()
@config_option
@json_option
@click.option("--personal", is_flag=True, help="For a few nodes and people you know (the default).")
@click.option("--enterprise", is_flag=True, help="XRay, remote relays, longer retention.")
@click.option("--state-dir", default="./state", show_default=True, metavar="DIR", help="Relative to the configuration.")
@click.option(
    "--database-dsn",
    default="",
    metavar="URL",
    help="A postgres:// URL; default: SQLite in the state directory. With a password in it, better set COX_DATABASE__DSN.",
)
@click.option(
    "--key-source",
    type=click.Choice(["file", "credential", "passphrase"]),
    default="file",
    show_default=True,
    help="What the CA's keys are sealed with; see ca.key_source in docs/configuration.md.",
)
@click.option("--force", is_flag=True, help="Write the configuration anew. The state, and the CA in it, are kept.")
def init(
    config: str | None, state_dir: str, database_dsn: str, key_source: str, *, personal: bool, enterprise: bool, force: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Make a configuration, a state directory and a certificate authority."""
    from coxswain.audit.keys import public_file  # noqa: PLC0415
    from coxswain.config import check, render  # noqa: PLC0415 - the rest is only needed here

    if personal and enterprise:
        raise InvalidInput("posture: --personal and --enterprise exclude each other", remedy="Say one of them, or neither.")
    posture = "enterprise" if enterprise else "personal"
    path = config_path(config)
    if os.path.lexists(path) and not force:
        raise AlreadyExists(f"there is a configuration {path} already", remedy="Keep it, or write it anew with --force.")
    overrides = {"state_dir": state_dir}
    if database_dsn:
        overrides |= {"database.dsn": database_dsn, "backend": "postgres"}
    if key_source != "file":
        overrides["ca.key_source"] = key_source
    text = render(posture, overrides).encode("utf-8", "surrogateescape")
    loaded = check(text, path)
    os.umask(0o077)
    files = [loaded.state_dir / name for name in _STATE_FILES]
    audit_key = loaded.audit_paths.key
    draft = path.with_name(path.name + ".new").absolute()
    with _undone_on_failure(draft, loaded.state_dir, *files, loaded.key_file, audit_key, public_file(audit_key)) as undone:
        draft.parent.mkdir(parents=True, exist_ok=True)
        _write_private(draft, text)

        def about_to_commit() -> None:
            if isinstance(loaded.database, str):
                # What a Postgres keeps is not undone with the files here, and is worth nothing without this key.
                undone[:] = [draft]

        fingerprint, reused, password = _make_state(loaded, about_to_commit)
        os.replace(draft, path)  # noqa: PTH105
    if as_json:
        found = {"posture": posture, "config": str(path), "state_dir": str(loaded.state_dir), "root_ca": fingerprint}
        print_json(found | {"reused": reused, "login": "admin", "password": password or ""})
        return
    facts(
        [
            ("posture", posture),
            ("configuration", path),
            ("state", loaded.state_dir),
            ("database", "Postgres" if isinstance(loaded.database, str) else loaded.database),
            ("CA key", _key_words(loaded)),
            ("root CA", f"{fingerprint} (SHA-256){', reused' if reused else ''}"),
            ("dashboard", f"http://{loaded['ui.listen']}"),
            ("login", "admin"),
            ("password", password or "as before (cox admins password admin gives a new one)"),
        ]
    )
    option = "" if config is None else f" --config {path}"
    click.echo(f"\nStart the daemon with: cox serve{option}")
    click.echo(f"Then add a node with:  cox nodes add{option} NAME --addr HOST --public-ip IP")


def _key_words(config: Config) -> str:
    match config["ca.key_source"]:
        case "file":
            return f"{config.key_file} (keep a copy of it apart from backups of the state)"
        case "credential":
            return "from a systemd credential, at every start"
        case _:
            return "from a passphrase, at every start"


def _make_state(config: Config, about_to_commit: Callable[[], object]) -> tuple[str, bool, str | None]:
    """Returns the root CA's fingerprint, whether it was there before, and the admin's password, if it got its first now."""
    from coxswain.access.first import give_first_password  # noqa: PLC0415
    from coxswain.audit import local_caller  # noqa: PLC0415
    from coxswain.clock import SystemClock  # noqa: PLC0415
    from coxswain.keyring import KeySource, load_secret, make_key_file, open_keyring  # noqa: PLC0415
    from coxswain.pki import Role, fingerprint  # noqa: PLC0415
    from coxswain.statedir import create_state_directory, open_state_directory  # noqa: PLC0415
    from coxswain.store import Durability, open_store  # noqa: PLC0415
    from coxswain.store.pki import ensure_authorities  # noqa: PLC0415

    create_state_directory(config.state_dir)
    state = open_state_directory(config.state_dir)
    try:
        source = KeySource(config["ca.key_source"])
        if source is KeySource.FILE:
            config.key_file.parent.mkdir(parents=True, exist_ok=True)
            make_key_file(config.key_file)
        secret = load_secret(source, key_file=config.key_file, environ=dict(os.environ))
        store = open_store(config.database, exclusive=True)
        try:
            about_to_commit()
            with store.write(Durability.ACKNOWLEDGED) as tx:
                reused = bool(tx.execute("SELECT 1 FROM keyring"))
                keyring = open_keyring(tx, secret)
            root = ensure_authorities(store, keyring, SystemClock())[Role.ROOT].certificate
            _record(config, store, fingerprint(root), reused=reused)
            with store.write(Durability.ACKNOWLEDGED) as tx:
                password = give_first_password(tx, local_caller(), now=SystemClock().now())
            return fingerprint(root), reused, password
        finally:
            store.close()
    finally:
        state.close()


def _record(config: Config, store: Store, root: str, *, reused: bool) -> None:
    """The audit key, and the first record of the log; the daemon takes it over from the outbox."""
    from coxswain.audit import local_caller, record  # noqa: PLC0415
    from coxswain.audit.keys import ensure_audit_key  # noqa: PLC0415
    from coxswain.clock import SystemClock  # noqa: PLC0415
    from coxswain.store import Durability  # noqa: PLC0415

    signer, _ = ensure_audit_key(config.audit_paths.key)
    detail = {"posture": config["posture"], "root_ca": root, "reused": reused, "audit_key": str(signer.verifier)}
    with store.write(Durability.ACKNOWLEDGED) as tx:
        record(tx, local_caller(), "init", ("controller", ""), detail, now=SystemClock().now())


@contextmanager
def _undone_on_failure(*made: Path) -> Iterator[list[Path]]:
    """If the block fails, takes away those of ``made`` that were not there before, and the directories above them that are
    new and empty. Nothing else: others may work in the same directories. Gives the block that list, to shorten.
    """
    new = [path for path in made if not os.path.lexists(path)]
    above = {parent for path in new for parent in path.parents if not parent.exists()}
    try:
        yield new
    except BaseException:
        for path in new:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for parent in sorted(above, key=lambda p: len(p.parts), reverse=True):
            with suppress(OSError):
                parent.rmdir()
        raise


def _write_private(path: Path, content: bytes) -> None:
    """A new file, 0600, in place of what an interrupted run may have left."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
