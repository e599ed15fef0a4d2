"""The state directory: private, and for one daemon at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from coxswain.errors import LoosePermissions, NotFound, StateDirectoryHeld

__all__ = ["ACCOUNT_SYNC_SOCKET", "StateDirectory", "check_private", "create_state_directory", "open_state_directory"]

_SECRETS = ("ca.key", "app.db", "app.db-wal", "app.db-shm", "audit.key")


ACCOUNT_SYNC_SOCKET = "run/account-sync.sock"
"""In the state directory, 0600: where AccountSync is served to relays (relay-contract.md 1.3, L3)."""


class StateDirectory:
    """A state directory that this process holds, until it closes it or ends."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def close(self) -> None:
        os.close(self._lock)


def create_state_directory(path: Path) -> None:
    """Makes the directory, 0700. An existing one is checked instead."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        check_private(path)


def open_state_directory(path: Path) -> StateDirectory:
    """Claims the directory for this process.

    Raises:
        NotFound: there is none.
        LoosePermissions: others can get at it, or at a secret in it.
        StateDirectoryHeld: another daemon works in it; names its pid.
    """
    if not path.is_dir():
        raise NotFound(f"there is no state directory {path}", remedy="Make one with: cox init --personal")
    check_private(path)
    for name in _SECRETS:
        if (path / name).exists():
            check_private(path / name)
    lock = os.open(path / "daemon.pid", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise StateDirectoryHeld(
            f"the state directory {path} is held by another daemon (pid {pid})",
            remedy=f"Stop that one first (kill {pid}), or give this one a state directory of its own.",
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return StateDirectory(path, lock)


def check_private(path: Path) -> None:
    """Raises ``LoosePermissions`` if others can read or write it, or it is somebody else's."""
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        wanted = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise LoosePermissions(
            f"{path} can be used by others (mode {mode:04o}); it holds secrets", remedy=f"chmod {wanted} {path}"
        )
    if found.st_uid != os.geteuid():
        raise LoosePermissions(
            f"{path} belongs to user {found.st_uid}, not to {os.geteuid()}", remedy=f"chown {os.geteuid()} {path}"
        )
