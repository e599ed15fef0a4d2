"""What a machine is: asked in one command, read without trust."""

from __future__ import annotations

import re
from collections.abc import Mapping

from coxswain.errors import NodeMisbehaved, NodeRefused
from coxswain.onboarding.units import GUARD_FILE, NODE, NODE_UNIT, RELAY, RELAY_UNITS, unit_file
from coxswain.words import counted

__all__ = [
    "ASK_CLOCK",
    "MIN_FREE_MB",
    "OURS",
    "SCRIPT",
    "check_fit",
    "check_room",
    "clock_words",
    "has_no_uplink",
    "read_absent",
    "read_clock",
    "read_facts",
]

MIN_FREE_MB = 200
"""Below this an installation would end half way."""

ASK_CLOCK = 'echo "clock=$(date +%s)"'

_FACTS = """
id=$(id); uid=${id#uid=}; uid=${uid%%[!0-9]*}; user=${id#*(}
echo "user=${user%%)*}"; echo "uid=$uid"
uname -rm | { read -r kernel arch; echo "kernel=$kernel"; echo "arch=$arch"; }
(. /etc/os-release 2>/dev/null; echo "os=${ID:-}"; echo "os_version=${VERSION_ID:-}"; echo "os_name=${PRETTY_NAME:-}")
df -Pm /usr/local/bin 2>/dev/null | { read -r _; read -r _ _ _ free _; echo "free_mb=$free"; }
read -r _ kb _ < /proc/meminfo; echo "memory_mb=$((kb / 1024))"
echo "cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
python=$(python3 -V 2>/dev/null); python=${python#Python }; echo "python=${python%.*}"
systemctl --version 2>/dev/null | { read -r _ systemd _; echo "systemd=$systemd"; }
echo "awg=$(command -v awg || true)"
if up=$(ip route show default 2>/dev/null); then
case $up in *" dev "*) up=${up#*" dev "}; echo "uplink=${up%% *}" ;; *) echo uplink= ;; esac; fi
if [ "$uid" = 0 ]; then echo sudo=root
elif sudo -n true 2>/dev/null; then echo sudo=yes; else echo sudo=no; fi
"""

OURS = (
    *(path for program in (NODE, RELAY) for path in (program.binary, program.staged, program.key)),
    *map(unit_file, (NODE_UNIT, *RELAY_UNITS)),
    GUARD_FILE,
)
"""Files of ours. A command costs a host more than looking for all of them, and most hosts have none."""

SCRIPT = f"""{_FACTS}\
{ASK_CLOCK}
if [ "$uid" = 0 ]; then for f in {" ".join(OURS)}; do [ -e $f ] || echo "absent=$f"; done; fi
"""
"""Prints ``key=value`` lines; run as the login user. What is absent only root tells, who may look everywhere."""

_KEYS = (
    "user", "uid", "kernel", "arch", "os", "os_version", "os_name", "free_mb", "memory_mb", "cpus", "python",
    "systemd", "awg", "uplink", "sudo",
)  # fmt: skip
_LONGEST = 120
_SECONDS = re.compile(r"-?[0-9]{1,11}")
_CLOCK_OFF_S = 300.0
"""Certificates are valid from this long before they are made."""
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


def read_facts(output: str) -> dict[str, str]:
    """The lines of ``SCRIPT``; unknown keys and what is no text are dropped. Raises ``NodeMisbehaved``."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        key, equals, value = line.partition("=")
        if equals and key in _KEYS:
            found[key] = "".join(c for c in value.strip() if c.isprintable())[:_LONGEST]
    if not found.get("arch") or "sudo" not in found:
        raise NodeMisbehaved("the host does not answer like a Unix: its shell printed no facts")
    return found


def read_absent(output: str) -> set[str]:
    """Which of ``OURS`` are not there, as ``SCRIPT`` told; what it did not look for is in none."""
    return {line.removeprefix("absent=") for line in output.splitlines() if line.startswith("absent=")} & set(OURS)


def read_clock(output: str) -> float | None:
    """What time it is there, in seconds since the epoch, as ``ASK_CLOCK`` told; None: it did not."""
    told = next((line.removeprefix("clock=") for line in output.splitlines() if line.startswith("clock=")), "")
    return float(told) if _SECONDS.fullmatch(told) else None


def clock_words(told: float | None, now: float) -> str:
    """What is to be said of a clock by which certificates may not be valid yet, or not any more; empty: it is right."""
    off = 0.0 if told is None else told - now
    if abs(off) < _CLOCK_OFF_S:
        return ""
    unit, seconds = next((unit, s) for unit, s in (("day", 86_400), ("hour", 3_600), ("minute", 60)) if abs(off) >= 2 * s)
    return (
        f"the host's clock is {counted(round(abs(off) / seconds), unit)} {'behind' if off < 0 else 'ahead'}, and by it "
        "certificates may not be valid: set it there (timedatectl set-ntp true)"
    )


def check_fit(facts: Mapping[str, str]) -> None:
    """Whether anything can be done there as root, and services run. Raises ``NodeRefused`` with the way out."""
    if facts.get("sudo") == "no":
        told = facts.get("user", "")
        user = told if _USER.fullmatch(told) else "USER"  # what follows is for somebody's shell
        raise NodeRefused(
            f"{user} may not become root without a password",
            remedy=f"Log in as root, or on the host: echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/coxswain",
        )
    if not facts.get("systemd"):
        raise NodeRefused("the host runs no systemd, which starts and restarts the agent there")


def check_room(name: str, facts: Mapping[str, str]) -> None:
    """Whether there is room for a program. Nothing else asks for that: of a host that is full, too, an agent is stopped,
    taken off and given its certificate. Raises ``NodeRefused``.
    """
    free = facts.get("free_mb", "")
    if free.isdecimal() and int(free) < MIN_FREE_MB:
        raise NodeRefused(
            f"{name}: the host has {free} MB left at /usr/local/bin; {MIN_FREE_MB} MB are needed",
            remedy="Make room there, and retry.",
        )


def has_no_uplink(facts: Mapping[str, str]) -> bool:
    """Whether agents would find nothing to masquerade by: that is the interface of the default route, asked for as they do
    (node-contract.md 7.8). A host that could not tell (no ``ip``) is given the benefit of the doubt.
    """
    return facts.get("uplink") == ""
