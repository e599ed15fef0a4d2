"""The database, the certificates in it, the audit log and the files beside it. Reads only; the daemon may run or not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from coxswain.audit.anchor import newest_stored, not_extended
from coxswain.audit.checkpoint_file import CheckpointFile
from coxswain.audit.keys import load_audit_key
from coxswain.backup.revocations import read_file
from coxswain.config import Config
from coxswain.doctor.finding import Finding, fail, ok, warn
from coxswain.errors import CoxswainError, KeyUnavailable, Refused
from coxswain.keyring import KeySource, load_secret, open_keyring
from coxswain.pki import Role
from coxswain.store import Store, Tx
from coxswain.store.migrate import SCHEMA_VERSION, schema_of
from coxswain.store.pki import load_authorities
from coxswain.words import counted

__all__ = ["check_state"]

_DAY_S = 86_400.0
_CA_SOON_S = 90 * _DAY_S
_LEAF_SOON_S = 20 * _DAY_S
_DEVICE_SOON_S = 30 * _DAY_S
_BACKUP_OLD_S = 7 * _DAY_S
_AHEAD_S = 300.0
_LARGE_WAL = 512 * 1024**2
_OUTBOX_OLD_S = 60.0


def check_state(config: Config, environ: Mapping[str, str], *, now: float, quick: bool = False) -> Iterator[Finding]:
    """Everything that the database tells. ``quick`` leaves out what takes time with its size."""
    try:
        store = _open(config.database)
    except CoxswainError as error:
        yield fail("database", str(error), error.remedy or "Look at database.dsn, or restore a backup: cox backup restore")
        return
    with closing(store):
        yield from _integrity(store, config, quick=quick)
        try:
            with store.read() as tx:
                version, oldest = schema_of(tx)
            if version != SCHEMA_VERSION:
                yield from _schema(version, oldest)
                return
            with store.read() as tx:
                yield from _interrupted(tx)
                yield from _keyring(tx, config, environ)
                yield from _certificates(tx, now)
                yield from _clock(tx, now)
                yield from _backups(tx, now)
                yield from _audit(tx, config, now)
        except CoxswainError as error:
            yield fail("database", str(error), error.remedy or "Restore a backup: cox backup restore")
    yield from _revocations(config.audit_paths.revocations)


def _open(where: str | Path) -> Store:
    """Without migrating: a doctor changes nothing."""
    if isinstance(where, str):
        from coxswain.store.postgres import PostgresStore  # noqa: PLC0415 - one of the two drivers is enough

        return PostgresStore(where.strip())
    from coxswain.store.sqlite import SqliteStore  # noqa: PLC0415

    if not where.exists():
        raise Refused(f"there is no database {where}", remedy="Make one with: cox init, or cox backup restore")
    return SqliteStore(where)


def _integrity(store: Store, config: Config, *, quick: bool) -> Iterator[Finding]:
    if isinstance(config.database, str):
        with store.read() as tx:
            server = tx.execute("SHOW server_version")[0][0]
        yield ok("database", f"Postgres {server} answers")
        return
    size = config.database.stat().st_size
    if not quick:
        with store.read() as tx:
            problems = [row[0] for row in tx.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
            loose = tx.execute("PRAGMA foreign_key_check")
        for problem in problems:
            yield fail(
                "database", f"{config.database} is damaged: {problem}", "Restore a backup: cox backup restore --force"
            )
        if loose:
            yield fail(
                "database",
                f"{counted(len(loose), 'reference')} to what is not there, first in {loose[0][0]}",
                "Restore a backup: cox backup restore --force",
            )
        if problems or loose:
            return
    yield ok(
        "database", f"{config.database} is whole, {size / 1024**2:.1f} MiB" if not quick else f"{config.database} opens"
    )
    wal = Path(f"{config.database}-wal")
    if wal.exists() and wal.stat().st_size > _LARGE_WAL:
        yield warn(
            "database",
            f"its write-ahead log has {wal.stat().st_size / 1024**2:.0f} MiB: somebody has read it for a long time",
            "Wait for a backup that runs, or end the program that has it open: fuser -v " + str(config.database),
        )


def _schema(version: int, oldest: int) -> Iterator[Finding]:
    if oldest > SCHEMA_VERSION:
        yield fail(
            "schema", f"the database has schema {version}, this release knows {SCHEMA_VERSION}", "Run a newer release."
        )
    else:
        yield warn(
            "schema",
            f"the database has schema {version}, this release {SCHEMA_VERSION}",
            "Make a backup with the old release; the next start of cox serve brings it up to date.",
        )


def _interrupted(tx: Tx) -> Iterator[Finding]:
    if tx.execute("SELECT 1 FROM meta WHERE key = 'restoring'"):
        yield fail("database", "a restore was interrupted", "Do it again: cox backup restore --force")


def _keyring(tx: Tx, config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    if not tx.execute("SELECT 1 FROM keyring"):
        yield fail("CA", "there is none", "Make one with: cox init")
        return
    try:
        secret = load_secret(KeySource(config["ca.key_source"]), key_file=config.key_file, environ=dict(environ))
        load_authorities(tx, open_keyring(tx, secret))
    except KeyUnavailable as error:
        if config["ca.key_source"] == "file":  # others may just not be at hand here
            yield fail("CA", str(error), error.remedy)
    except CoxswainError as error:
        yield fail("CA", str(error), error.remedy)
    else:
        yield ok("CA", "its sealed keys open")


def _certificates(tx: Tx, now: float) -> Iterator[Finding]:
    ends = tx.execute("SELECT role, not_after FROM authorities ORDER BY not_after")
    for role, end in ends:
        left = end / 1e6 - now
        if left < 0:
            yield fail(
                "certificates", f"the {role} CA has expired", "See docs/pki.md, or file an issue: this is years away."
            )
        elif left < _CA_SOON_S:
            yield _ends_soon(tx, role, left / _DAY_S)
    leaf = tx.execute("SELECT max(not_after) FROM controller_certs")[0][0]
    if leaf is not None and leaf / 1e6 < now + _LEAF_SOON_S:
        yield warn(
            "certificates",
            f"the controller's certificate ends in {counted(round(max(0.0, leaf / 1e6 - now) / _DAY_S), 'day')}",
            "It renews itself while the daemon runs: is the daemon running?",
        )
    due = tx.execute(
        "SELECT n.name, max(c.not_after) FROM nodes n JOIN node_certs c ON c.node_id = n.id "
        "WHERE n.enabled = 1 AND c.revoked_at IS NULL GROUP BY n.id, n.name HAVING max(c.not_after) < ? ORDER BY 2, 1",
        (int((now + _LEAF_SOON_S) * 1e6),),
    )
    if due:
        names = ", ".join(row[0] for row in due[:5]) + (f" and {len(due) - 5} more" if len(due) > 5 else "")
        expired = due[0][1] / 1e6 < now
        text = (
            f"certificates of {counted(len(due), 'node')} {'have expired or ' if expired else ''}end within 20 days: {names}"
        )
        yield (fail if expired else warn)("certificates", text, "Enrol them again: cox nodes enroll NODE")
    elif ends:
        yield ok("certificates", "none ends soon")
    yield from _device_certificates(tx, now)


def _device_certificates(tx: Tx, now: float) -> Iterator[Finding]:
    """No existing client renews its own (accounts-profiles.md 10.1, 11): somebody has to invite the device once more."""
    rows = tx.execute(
        "SELECT d.id, i.not_after FROM device_identities i JOIN devices d ON d.id = i.device_id "
        "WHERE d.status = 'active' AND i.not_after < ? ORDER BY i.not_after, d.id",
        (int((now + _DEVICE_SOON_S) * 1e6),),
    )
    if not rows:
        return
    first, end = rows[0]
    days = (end / 1e6 - now) / _DAY_S
    when = f"ends in {counted(round(days), 'day')}" if days > 0 else "has ended"
    more = f", and those of {len(rows) - 1} more within 30 days" if len(rows) > 1 else ""
    yield warn(
        "certificates",
        f"the certificate of device {first} {when}{more}; without it, it fetches no profile",
        f"Have it enrol anew, with its profiles kept: cox enroll USER --device {first}",
    )


def _ends_soon(tx: Tx, role: str, days: float) -> Finding:
    """An authority that ends, although it should have handed over long ago."""
    text = f"the {role} CA expires in {counted(round(days), 'day')}"
    if role == Role.ROOT.value:
        return warn("certificates", text, "Plan a new fleet: what is pinned to this root ends with it. See docs/pki.md.")
    heirs = tx.execute(
        "SELECT max(created_at) FROM authority_lines WHERE role = ? AND key_sealed IS NOT NULL HAVING count(*) > 0", (role,)
    )
    if not heirs:
        return warn("certificates", text, "The daemon makes its heir in time while it runs: is it running?")
    lacking = tx.execute(
        "SELECT n.name FROM nodes n JOIN node_certs c ON c.node_id = n.id WHERE n.enabled = 1 AND c.revoked_at IS NULL "
        "GROUP BY n.id, n.name HAVING max(c.created_at) < ? ORDER BY n.name",
        (heirs[0][0],),
    )
    names = ", ".join(row[0] for row in lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
    if role != Role.CONTROL.value or not lacking:
        return warn("certificates", f"{text}; its heir takes over", "The daemon does that while it runs: is it running?")
    return warn(
        "certificates",
        f"{text}, and {counted(len(lacking), 'node')} not given its heir to trust: {names}",
        "Give them a new certificate: cox nodes renew NODE, or cox nodes enroll NODE. Without it they are cut off then.",
    )


def _clock(tx: Tx, now: float) -> Iterator[Finding]:
    rows = tx.execute("SELECT at FROM audit_log ORDER BY seq DESC LIMIT 1")
    if rows and rows[0][0] / 1e6 > now + _AHEAD_S:
        ahead = (rows[0][0] / 1e6 - now) / 60
        yield warn(
            "clock",
            f"the newest audit record is of {counted(round(ahead), 'minute')} from now: this clock was set back, or "
            "was ahead then",
            "See that the clock is right, before certificates are issued.",
        )


def _backups(tx: Tx, now: float) -> Iterator[Finding]:
    rows = tx.execute(
        "SELECT max(at) FROM (SELECT at FROM audit_log WHERE action = 'backup.create' "
        "UNION ALL SELECT at FROM audit_outbox WHERE action = 'backup.create') made"
    )
    at = rows[0][0]
    if at is None:
        yield warn("backups", "there is no record of one", "Make one: cox backup create")
    elif now - at / 1e6 > _BACKUP_OLD_S:
        days = (now - at / 1e6) / _DAY_S
        yield warn(
            "backups",
            f"the newest is {counted(round(days), 'day')} old",
            "Make one, and let cron or a timer do it: cox backup create",
        )
    else:
        yield ok("backups", f"the newest is of {time.strftime('%Y-%m-%d %H:%M', time.gmtime(at / 1e6))} UTC")


def _audit(tx: Tx, config: Config, now: float) -> Iterator[Finding]:
    paths = config.audit_paths
    remedy = "See: cox audit verify, and docs/audit.md."
    try:
        verifier = load_audit_key(paths.key).verifier
    except CoxswainError as error:
        if paths.key.exists():
            yield fail("audit log", str(error), error.remedy or remedy)
        return
    notes = [note for note in (newest_stored(tx), CheckpointFile(paths.checkpoints).newest()) if note is not None]
    sentences = not_extended(tx, verifier, notes)
    for sentence in sentences:
        yield fail("audit log", sentence, remedy)
    if not sentences:
        size = tx.execute("SELECT seq FROM audit_log ORDER BY seq DESC LIMIT 1")
        yield ok(
            "audit log",
            f"{counted(size[0][0] if size else 0, 'record')}, which extend {counted(len(set(notes)), 'checkpoint')}",
        )
    oldest = tx.execute("SELECT min(at) FROM audit_outbox")[0][0]
    if oldest is not None and now - oldest / 1e6 > _OUTBOX_OLD_S:
        yield warn(
            "audit log",
            f"records have waited for {counted(round((now - oldest / 1e6) / 60), 'minute')} to be taken in",
            "They follow when the daemon runs: cox status",
        )


def _revocations(path: Path) -> Iterator[Finding]:
    try:
        found = read_file(path)
    except FileNotFoundError:
        return  # nothing was revoked yet
    except (CoxswainError, OSError) as error:
        yield fail(
            "revocations", str(error), "Compare it with the copy that you keep elsewhere; the daemon begins a new one."
        )
    else:
        yield ok("revocations", f"{counted(len(found), 'entry', 'entries')} in {path}, one chain")
