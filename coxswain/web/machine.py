"""What a machine said of itself, in words (``coxswain.onboarding.facts``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

__all__ = ["machine_facts"]

_GB_IN_MB = 1024
_SUDO = {"root": "root", "yes": "sudo without a password", "no": "none, and it needs root"}


def machine_facts(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    """What there is to say of it, and how it is called. What a machine did not say is left out; what nobody knows here is
    shown as it came.
    """
    given = {key: str(value) for key, value in facts.items()}
    return list(_said(given))


def _said(given: dict[str, str]) -> Iterator[tuple[str, str]]:
    system = given.pop("os_name", ""), " ".join(filter(None, (given.pop("os", ""), given.pop("os_version", ""))))
    kernel, arch = given.pop("kernel", ""), given.pop("arch", "")
    yield from _if("System", system[0] or system[1])
    yield from _if("Kernel", ", ".join(filter(None, (kernel, arch))))
    cpus = given.pop("cpus", "")
    yield from _if("Processors", cpus)
    yield from _if("Memory", _size(given.pop("memory_mb", "")))
    yield from _if("Free on disk", _size(given.pop("free_mb", "")))
    if "uplink" in given:
        yield "Way out", given.pop("uplink") or "no default route"
    user, uid = given.pop("user", ""), given.pop("uid", "")
    sudo = given.pop("sudo", "")
    yield from _if("Rights", _SUDO.get(sudo, sudo) or user or uid)
    yield from _if("Python", given.pop("python", ""))
    yield from _if("systemd", given.pop("systemd", ""))
    if "awg" in given:
        yield "AmneziaWG's tools", given.pop("awg") or "not installed"
    yield from ((key.replace("_", " ").capitalize(), value) for key, value in given.items() if value)


def _if(label: str, value: str) -> Iterator[tuple[str, str]]:
    if value:
        yield label, value


def _size(megabytes: str) -> str:
    """``1.9 GB``, ``512 MB``; what is no number as it came."""
    if not megabytes.isdecimal():
        return megabytes
    count = int(megabytes)
    return f"{count / _GB_IN_MB:.1f} GB" if count >= _GB_IN_MB else f"{count} MB"
