"""Makes the interpreter and this checkout reachable for programs that tests start as another user.

They may lie in root's home, which nobody else gets into. In a mount namespace of its own a test covers that directory with
an empty one, in which there is the way to them and nothing else.
"""

from __future__ import annotations

import shlex
import stat
import sys
from pathlib import Path

__all__ = ["open_the_way"]

ROOT = Path(__file__).resolve().parents[1]


def open_the_way() -> str:
    """Shell commands for a mount namespace that is the test's own; ``/mnt`` is free afterwards."""
    wanted = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT}
    closed = {path: gate for path in wanted if (gate := _gate(path)) is not None}
    assert all(path != gate for path, gate in closed.items()), f"{closed}: tests want others to get in there"
    paths, gates = sorted(closed), sorted({gate for gate in closed.values() if gate is not None})
    if not paths:
        return "true"
    commands = ["umask 022", "mount -t tmpfs way /mnt"]
    for number, path in enumerate(paths):
        commands.append(f"mkdir /mnt/{number}; mount --bind {shlex.quote(str(path))} /mnt/{number}")
    commands += [f"mount -t tmpfs -o mode=755 way {shlex.quote(str(gate))}" for gate in gates]
    for number, path in enumerate(paths):
        commands.append(f"mkdir -p {shlex.quote(str(path))}; mount --bind /mnt/{number} {shlex.quote(str(path))}")
    return "; ".join([*commands, "umount -l /mnt"])


def _gate(path: Path) -> Path | None:
    """The outermost directory on the way to it that is closed to others."""
    way = [*reversed(path.parents), path]
    return next((each for each in way if not each.stat().st_mode & stat.S_IXOTH), None)
