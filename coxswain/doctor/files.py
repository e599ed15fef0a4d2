"""Configuration, permissions, keys, disk space, the clock: what can be seen without the database."""

from __future__ import annotations

import ctypes
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from coxswain.config import Config
from coxswain.doctor.finding import Finding, fail, ok, warn
from coxswain.errors import CoxswainError
from coxswain.keyring import KeySource, load_secret
from coxswain.words import counted

__all__ = ["check_clock", "check_config", "check_dashboard", "check_disk", "check_key", "check_permissions", "check_process"]

_LITTLE_BYTES = 1024**3
_TOO_LITTLE_BYTES = 100 * 1024**2
_LITTLE_SHARE = 0.05
_FEW_INODES = 1_000
_MOST_NAMED = 5
_DESCRIPTORS_BESIDE = 200
"""Files, threads' pipes, browsers: what a daemon has open beside a socket for each node."""

_FULL = 0.8
_LISTENS = "0A"
"""TCP_LISTEN, in proc_pid_net(5)."""


def check_config(config: Config) -> Iterator[Finding]:
    """A configuration that is not sound is told before anything else is looked at."""
    warnings = config.warnings()
    for text in warnings:
        yield warn("configuration", text, "See docs/configuration.md.")
    if not warnings:
        yield ok("configuration", f"{config.path} is sound")
    mode = stat.S_IMODE(config.path.stat().st_mode)
    if mode & 0o022:
        yield fail("configuration", f"{config.path} can be changed by others (mode {mode:04o})", f"chmod 600 {config.path}")


def check_permissions(config: Config) -> Iterator[Finding]:
    """The state directory and all in it are ours alone."""
    state = config.state_dir
    if not state.is_dir():
        yield fail("permissions", f"there is no state directory {state}", "Make one with: cox init, or cox backup restore")
        return
    loose, foreign = [], []
    for path in (state, *state.rglob("*")):
        try:
            info = path.lstat()
        except OSError:
            continue  # gone meanwhile
        if stat.S_ISLNK(info.st_mode):
            continue
        if stat.S_IMODE(info.st_mode) & 0o077:
            loose.append(path)
        if info.st_uid != state.stat().st_uid:
            foreign.append(path)
    if loose:
        names = _named(loose, state)
        yield fail("permissions", f"can be read or written by others: {names}", f"chmod -R go-rwx {state}")
    if foreign:
        yield fail("permissions", f"belong to another user than {state}: {_named(foreign, state)}", f"See: ls -laR {state}")
    if state.stat().st_uid != os.geteuid():
        yield warn("permissions", f"{state} belongs to user {state.stat().st_uid}", "Run cox as the daemon's user.")
    if not loose and not foreign:
        yield ok("permissions", f"{state} is private")
    left = [*state.parent.glob(f"{state.name}.replaced-*"), *state.parent.glob(f"{state.name}.restore-*")]
    if left:
        names = ", ".join(path.name for path in left[:_MOST_NAMED])
        yield warn(
            "permissions", f"earlier restores have left states behind, with keys: {names}", "Remove them when all is well."
        )


def check_key(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The key that seals the CA's keys can be had."""
    try:
        load_secret(KeySource(config["ca.key_source"]), key_file=config.key_file, environ=dict(environ))
    except CoxswainError as error:
        if config["ca.key_source"] == "file":
            yield fail("CA key", str(error), error.remedy)
        else:
            yield warn("CA key", f"cannot be looked at from here: {error}", "Run cox doctor in the daemon's environment.")
    else:
        yield ok("CA key", f"is there ({config['ca.key_source']})")
    audit_key = config.audit_paths.key
    if not audit_key.exists():
        yield warn("audit key", f"there is no {audit_key}", "cox serve makes one, and leaves a record of it.")


def check_disk(config: Config) -> Iterator[Finding]:
    """Room for what grows: the database, its write-ahead log, the append-only files."""
    if not config.state_dir.is_dir():
        return
    found = os.statvfs(config.state_dir)
    free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    text = f"{free / 1024**3:.1f} GiB of {whole / 1024**3:.1f} GiB are free at {config.state_dir}"
    remedy = "Make room, or let less be kept: retention.metrics_days, retention.audit_days."
    if free < _TOO_LITTLE_BYTES:
        yield fail("disk space", text, remedy)
    elif free < _LITTLE_BYTES or free < whole * _LITTLE_SHARE:
        yield warn("disk space", text, remedy)
    else:
        yield ok("disk space", text)
    if found.f_files and found.f_favail < _FEW_INODES:
        yield warn(
            "disk space", f"only {found.f_favail} more files can be made there", "Remove small files on that file system."
        )


class _Timex(ctypes.Structure):
    """The part of the kernel's ``struct timex`` that is read (adjtimex(2)); the rest is room."""

    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_char * 512))


_TIME_ERROR = 5


def check_clock() -> Iterator[Finding]:
    """Certificates, sessions and TOTP need the time; the kernel knows whether anybody keeps its clock right."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(_Timex(0, b"")))
    except (OSError, AttributeError):
        state = -1
    if state == _TIME_ERROR:
        yield warn(
            "clock",
            "nobody keeps this machine's clock right",
            "Run an NTP client: apt-get install chrony, or systemd-timesyncd.",
        )
    elif state >= 0:
        yield ok("clock", "is synchronised")


def check_process(pid: int, nodes: int) -> Iterator[Finding]:
    """May the daemon, a process of this machine, open as many descriptors as it will need?"""
    try:
        text = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
        in_use = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - only how many
    except (OSError, UnicodeDecodeError):
        return
    found = re.search(r"^Max open files\s+(\d+)", text, re.MULTILINE)
    if found is None:
        return
    most, needed = int(found[1]), max(in_use, nodes + _DESCRIPTORS_BESIDE)
    if needed > most * _FULL:
        text = f"it may open {most} files, has {in_use} open, and may need {needed} for {counted(nodes, 'node')}"
        yield warn("daemon", text, f"Raise the limit: LimitNOFILE={4 * needed} in its systemd unit, or ulimit -n.")


def check_dashboard(pid: int, listen: str) -> Iterator[Finding]:
    """Does the daemon, a process of this machine, listen where browsers look for it? Another program may have the port."""
    try:
        links = (Path(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - numbers
        ours = {str(link.readlink()).removeprefix("socket:[").rstrip("]") for link in links if link.is_socket()}
        tables = [Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6")]
    except OSError:
        return  # another user's, or it is gone: nothing is known
    port = f"{int(listen.rpartition(':')[2]):04X}"
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    there = {row[9] for row in rows if row[3] == _LISTENS and row[1].rpartition(":")[2] == port}
    if ours & there:
        yield ok("dashboard", f"listens on {listen}")
    elif there:
        text = f"does not listen on {listen}, which another program has"
        yield fail("dashboard", text, "End that, or set ui.listen to a free port; cox serve tries again by itself.")
    else:
        text = f"does not listen on {listen}; it was started with another ui.listen, or cannot"
        yield warn("dashboard", text, "See the daemon's log; a change of ui.listen needs a start anew.")


def _named(paths: list[Path], root: Path) -> str:
    names = [str(path.relative_to(root)) if path != root else str(root) for path in paths[:_MOST_NAMED]]
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return ", ".join(names) + more
