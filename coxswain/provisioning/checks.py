"""What may enter as a user, a device or a profile: pure checks, each with an error that names the way out."""

from __future__ import annotations

import re
import unicodedata

from coxswain.errors import InvalidInput
from coxswain.inventory import check_endpoint_ips
from coxswain.model import Node, Profile, ProfileProtocol, UserStatus
from coxswain.provisioning.readiness import endpoints

__all__ = [
    "check_email",
    "check_label",
    "check_phone",
    "check_platform",
    "check_profile",
    "check_protocol",
    "check_user_status",
]

_MAX_NAME = 64
"""A device's name becomes the CN of its certificate (accounts-profiles.md 10.2, 21)."""

_EMAIL = re.compile(r"[^\s@\"'<>(),;:\\\[\]]{1,64}@(?=.{1,190}$)(?:[\w](?:[\w-]{0,61}[\w])?\.)+[\w](?:[\w-]{0,61}[\w])?")
_PHONE = re.compile(r"\+?[0-9]{4,15}")
"""ITU-T E.164 has at most 15 digits."""

_PHONE_NOISE = re.compile(r"[\s().\-/]")


def check_label(field: str, text: str) -> str:
    """A name of anything but a node: printable, trimmed, 1 to 64 bytes of UTF-8, in composed form (NFC)."""
    name = unicodedata.normalize("NFC", text.strip())
    if not name or not name.isprintable() or len(name.encode()) > _MAX_NAME:
        raise InvalidInput(f"{field}: {text[:80]!r} is not a name: 1 to {_MAX_NAME} bytes of printable text")
    return name


def check_platform(text: str) -> str:
    """What the device runs, e.g. ``android``; may be empty."""
    platform = text.strip()
    if len(platform) > 32 or not platform.isprintable():
        raise InvalidInput(f"platform: {text[:80]!r} is not a platform: at most 32 printable characters")
    return platform


def check_email(text: str) -> str:
    """In lower case, so that one address is one user; may be empty."""
    email = unicodedata.normalize("NFC", text.strip()).lower()
    if email and not _EMAIL.fullmatch(email):
        raise InvalidInput(f"email: {text[:120]!r} is not an e-mail address such as ann@example.org")
    return email


def check_phone(text: str) -> str:
    """Digits with at most a leading ``+``; blanks, dashes, dots and parentheses are dropped. May be empty."""
    phone = _PHONE_NOISE.sub("", text.strip())
    if phone.startswith("00"):
        phone = "+" + phone[2:]
    if phone and not _PHONE.fullmatch(phone):
        raise InvalidInput(f"phone: {text[:40]!r} is not a phone number such as +49 30 1234567")
    return phone


def check_user_status(text: str) -> UserStatus:
    try:
        return UserStatus(text)
    except ValueError:
        raise InvalidInput(f"status: {text[:40]!r} is not one of {', '.join(UserStatus)}") from None


def check_protocol(text: str) -> ProfileProtocol:
    try:
        return ProfileProtocol(text)
    except ValueError:
        raise InvalidInput(f"protocol: {text[:40]!r} is not one of {', '.join(ProfileProtocol)}") from None


def check_profile(profile: Profile, entry: Node) -> Profile:
    """A profile that leads to ``entry``, with its name and entry addresses in order.

    XRay over a path is refused: a node has one way out for all its XRay clients, so their traffic would leave at the entry
    although the profile says otherwise (fleet-model.md 12 C, 21).
    """
    if profile.path_id and profile.protocol is not ProfileProtocol.AMNEZIAWG:
        raise InvalidInput(
            f"protocol: {profile.protocol.value} cannot follow a path: XRay traffic leaves at the entry node; "
            "choose amneziawg, or a node in place of the path"
        )
    entry_ips = check_endpoint_ips(profile.entry_ips)
    pool = endpoints(entry)
    for address in entry_ips:
        if address not in pool:
            raise InvalidInput(
                f"entry_ips: {address} is not an endpoint of node {entry.name}; "
                f"it has {', '.join(pool) if pool else 'none yet'}"
            )
    return Profile(
        id=profile.id,
        device_id=profile.device_id,
        name=check_label("name", profile.name),
        protocol=profile.protocol,
        node_id=profile.node_id,
        path_id=profile.path_id,
        entry_ips=entry_ips,
        user_id=profile.user_id,
        version=profile.version,
        created_at=profile.created_at,
    )
