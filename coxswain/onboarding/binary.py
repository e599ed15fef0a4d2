"""Is this file a program for that machine, and which version is it? Decided on its first bytes, before it is installed."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from coxswain.errors import NodeRefused

__all__ = ["HEAD_BYTES", "check_binary", "display_version", "is_newer", "normalise_version"]

HEAD_BYTES = 128

_ELF_MACHINES = {
    3: "i386",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    22: "s390x",
    21: "ppc64le",
    258: "loongarch64",
}
"""e_machine of the ELF header (System V ABI)."""

_ALIASES = {
    "amd64": "x86_64", "arm64": "aarch64", "armv6l": "arm", "armv7l": "arm", "armv8l": "arm", "i486": "i386", "i586": "i386",
    "i686": "i386",
}  # fmt: skip
_RUNS_ALSO = {"x86_64": {"i386"}, "aarch64": set[str]()}

_SEMVER = re.compile(r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")
_LONGEST_VERSION = 200
"""Characters. Hosts tell versions, and Python makes no number of thousands of digits: it raises ``ValueError``."""
_PSEUDO = re.compile(r"(v\d+\.\d+\.\d+)-(?:.*\.)?(?:0\.)?\d{14}-([0-9a-f]{12})$")
_PYTHON = re.compile(rb"python(\d(?:\.\d+)?)?")


def check_binary(head: bytes, facts: Mapping[str, str]) -> str:
    """What kind of program it is. Raises ``NodeRefused`` when it cannot run on a machine with these facts.

    Args:
        head: its first ``HEAD_BYTES`` bytes.
        facts: ``arch`` and ``python`` are looked at.
    """
    arch = _ALIASES.get(facts.get("arch", ""), facts.get("arch", ""))
    if head.startswith(b"\x7fELF") and len(head) >= 20:
        machine = _elf_machine(head)
        if machine != arch and machine not in _RUNS_ALSO.get(arch, ()):
            raise NodeRefused(
                f"the program is for {machine}, and the host is {arch or 'unknown'}",
                remedy="Give the program that was built for this host.",
            )
        return f"ELF, {machine}"
    if head.startswith(b"#!"):
        line = head[2:].split(b"\n", 1)[0]
        if _PYTHON.search(line) and not facts.get("python"):
            raise NodeRefused(
                "the program needs Python 3, and the host has none",
                remedy="Install it there (apt-get install python3), and retry.",
            )
        return f"script, {line.strip().decode(errors='replace')[:60]}"
    what = "empty" if not head else "a web page" if head.lstrip()[:1] == b"<" else "neither ELF nor a script"
    raise NodeRefused(f"the file is no program: it is {what}", remedy="Give the agent's binary or its zipapp.")


def normalise_version(text: str) -> str:
    """The last word, with a ``v`` in front; empty when that is no semantic version (fleet-model.md 3.6)."""
    words = text.split()
    word = words[-1] if words else ""
    return f"v{word.removeprefix('v')}" if len(word) <= _LONGEST_VERSION and _SEMVER.fullmatch(word) else ""


@functools.lru_cache(maxsize=1_024)  # asked for every node of every list
def is_newer(candidate: str, present: str) -> bool:
    """Whether both are known and ``candidate`` is strictly greater (semver.org, section 11)."""
    ours, theirs = _precedence(candidate), _precedence(present)
    return ours is not None and theirs is not None and ours > theirs


@functools.lru_cache(maxsize=1_024)
def display_version(text: str) -> str:
    """A clean tag as it is; a Go pseudo-version as ``<base>-dev+<7 hex>``; unknown: empty."""
    version = normalise_version(text)
    pseudo = _PSEUDO.fullmatch(version)
    return f"{pseudo[1]}-dev+{pseudo[2][:7]}" if pseudo else version


def _elf_machine(head: bytes) -> str:
    order = "little" if head[5] != 2 else "big"
    number = int.from_bytes(head[18:20], "little" if order == "little" else "big")
    return _ELF_MACHINES.get(number, f"machine {number}")


def _precedence(text: str) -> tuple[object, ...] | None:
    match = _SEMVER.fullmatch(normalise_version(text))
    if match is None:
        return None
    numbers = tuple(int(part) for part in match.groups()[:3])
    if match[4] is None:
        return (*numbers, 1, ())  # a release is greater than what came before it
    parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in match[4].split("."))
    return (*numbers, 0, parts)
