"""Messages to ``fleet`` about users, devices and profiles: who may use the fleet, and what they are given.

Changes carry a ``Caller`` and reply ``Committed[Change]``; what they changed is durable when the reply comes, with the
revisions of all nodes that it touches, and the links of those nodes are told. ``AwaitApplied`` waits for the nodes.
They raise ``InvalidInput``, ``NotFound``, ``AlreadyExists``, ``AddressesExhausted`` and, where a version is given that is
not the present one, ``StaleVersion``. ``version`` None: whatever it is now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from coxswain.messages.audit import Caller
from coxswain.model import DeviceStatus

__all__ = [
    "AddDevice",
    "AddProfile",
    "AddUser",
    "Applied",
    "AwaitApplied",
    "Change",
    "EditDevice",
    "EditProfile",
    "EditUser",
    "ExportFormat",
    "ExportProfile",
    "Exported",
    "GetDevice",
    "GetProfile",
    "GetUser",
    "Given",
    "ListDevices",
    "ListProfiles",
    "ListUsers",
    "ProvisionDevice",
    "RemoveDevice",
    "RemoveProfile",
    "RemoveUser",
    "SetDeviceStatus",
    "Unserved",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unserved:
    """A profile that cannot be served just now, or not in full, and why; it keeps what it had."""

    profile_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Given:
    """What a device has now (management-plane.md 3.3, ProvisionResult)."""

    device_id: str
    tunnel_ip: str = ""
    peer_count: int = 0
    profile_revision: int = 0
    tunnel_ip_v6: str = ""


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """The reply to a change: what was changed as it is now, and which nodes have to follow.

    ``revisions``: node id to the revision that carries the change.
    """

    value: T
    revisions: dict[str, int] = field(default_factory=dict)
    given: tuple[Given, ...] = ()
    unserved: tuple[Unserved, ...] = ()


# -- users


@dataclass(frozen=True, slots=True)
class AddUser:
    """Reply: ``Committed[Change[User]]``. E-mail and phone are normalised; each is some one user's, or empty.

    ``password_hash``: a PHC string, or empty: most users never need a password (accounts-profiles.md 1.2). ``unique``:
    ``AlreadyExists`` if somebody else without an address and number, as this one, has that name.
    """

    caller: Caller
    name: str
    email: str = ""
    phone: str = ""
    password_hash: str = field(default="", repr=False)
    unique: bool = False


@dataclass(frozen=True, slots=True)
class EditUser:
    """Changes what is not None. Reply: ``Committed[Change[User]]``.

    ``status`` other than ``active`` takes the peers of all devices of the user from all nodes, and ``active`` brings them
    back with the same keys; ``action`` is what the audit log calls it.
    """

    caller: Caller
    id: str
    version: int | None = None
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    status: str | None = None
    action: str = "user.update"


@dataclass(frozen=True, slots=True)
class RemoveUser:
    """With devices, profiles and keys; its peers leave all nodes. Reply: ``Committed[Change[User]]`` (the removed one).

    Raises ``Conflict`` for an admin.
    """

    caller: Caller
    id: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class GetUser:
    """``key`` is an id or, ``by_contact``, an e-mail address. Reply: ``User``. Raises ``NotFound``."""

    key: str
    by_contact: bool = True


@dataclass(frozen=True, slots=True)
class ListUsers:
    """Reply: list of ``User`` of that role, oldest first, the first ``limit`` after the id ``after``. ``wanted``: a part of
    the name or, ``by_contact``, e-mail or phone, in any case of its letters, or the id; empty: all.
    """

    after: str = ""
    limit: int = 100
    role: str = "user"
    wanted: str = ""
    by_contact: bool = True


# -- devices


@dataclass(frozen=True, slots=True)
class AddDevice:
    """A device; it is given nothing yet (``ProvisionDevice``), and is on no node while its user is suspended. Reply:
    ``Committed[Change[Device]]``. ``unique``: ``AlreadyExists`` if the user has one of that name that is not revoked.
    """

    caller: Caller
    user_id: str
    name: str
    platform: str = ""
    unique: bool = False


@dataclass(frozen=True, slots=True)
class EditDevice:
    """Changes what is not None. Reply: ``Committed[Change[Device]]``."""

    caller: Caller
    id: str
    version: int | None = None
    name: str | None = None
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class SetDeviceStatus:
    """Suspends, resumes or revokes. Reply: ``Committed[Change[Device]]``.

    ``REVOKED`` destroys the keys and frees the addresses, for good: a revoked device can only be removed.
    """

    caller: Caller
    id: str
    status: DeviceStatus
    version: int | None = None


@dataclass(frozen=True, slots=True)
class RemoveDevice:
    """With profiles and keys; its peers leave all nodes. Reply: ``Committed[Change[Device]]`` (the removed one)."""

    caller: Caller
    id: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class GetDevice:
    """Reply: ``(Device, tuple[Credential, ...], tuple[Peer, ...])``: with its keys' public halves and addresses."""

    id: str


@dataclass(frozen=True, slots=True)
class ListDevices:
    """Reply: list of ``Device``, oldest first, the first ``limit`` after the id ``after``; of one user, or of all.
    ``wanted``: a part of the name, or the id; empty: all.
    """

    user_id: str = ""
    after: str = ""
    limit: int = 100
    wanted: str = ""


@dataclass(frozen=True, slots=True)
class ProvisionDevice:
    """Makes the device's peers what its profiles say; without profiles, it is given every node that is ready.

    Keys and addresses that are there are kept. ``rotate``: makes new keys, at the same addresses; the tunnels that are up
    are cut until the device has fetched them. ``version`` None: whatever it is now. Reply: ``Committed[Change[Device]]``.
    Raises ``StaleVersion``; ``Conflict``: it is revoked.
    """

    caller: Caller
    id: str
    rotate: bool = False
    version: int | None = None


# -- profiles


@dataclass(frozen=True, slots=True)
class AddProfile:
    """Adds a profile and provisions its device, at once. Reply: ``Committed[Change[Profile]]``.

    Exactly one of ``node`` (id or name) and ``path_id``. ``user_id``: if given, the device must be this user's.
    """

    caller: Caller
    device_id: str
    name: str
    protocol: str = "amneziawg"
    node: str = ""
    path_id: str = ""
    entry_ips: tuple[str, ...] = ()
    user_id: str = ""


@dataclass(frozen=True, slots=True)
class EditProfile:
    """Changes what is not None, and provisions the device. Reply: ``Committed[Change[Profile]]``."""

    caller: Caller
    id: str
    version: int | None = None
    name: str | None = None
    protocol: str | None = None
    node: str | None = None
    path_id: str | None = None
    entry_ips: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RemoveProfile:
    """Removes a profile with its keys, and provisions the device. Reply: ``Committed[Change[Profile]]``."""

    caller: Caller
    id: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class GetProfile:
    """Reply: ``Profile``. Raises ``NotFound``."""

    id: str


@dataclass(frozen=True, slots=True)
class ListProfiles:
    """Reply: list of ``Profile``, oldest first: of a device, else of a user, else all."""

    device_id: str = ""
    user_id: str = ""
    after: str = ""
    limit: int = 100


class ExportFormat(StrEnum):
    """What an exported profile is for: a stock AmneziaWG client, an existing PharosVPN client (in the clear, or sealed so
    that only the device, once it has enrolled, can open it), an XRay client.
    """

    CONF = "conf"
    PHAROS = "pharos"
    VLESS = "vless"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class ExportProfile:
    """Hands out keys. Reply: ``Committed[Exported]``. ``profile_id`` empty: what a device without profiles is given, or of
    its profiles the first; ``node`` (id or name): which of several. Raises ``Conflict``: nothing to be had.
    """

    caller: Caller
    device_id: str
    profile_id: str = ""
    node: str = ""
    format: ExportFormat = ExportFormat.CONF


@dataclass(frozen=True, slots=True)
class Exported:
    """A file for a client. ``text`` is secret. ``revision``: of a sealed one. ``also``: names of other nodes that it could
    be of, where one file holds one node's. ``leaves_at``: id of the node where what is sent by it leaves, unless that is
    led on from there; empty: it goes over a path, or the file is of several nodes. ``notes``: what somebody may expect of
    it that is not so.
    """

    name: str
    text: str = field(repr=False)
    revision: int = 0
    also: tuple[str, ...] = ()
    leaves_at: str = ""
    notes: tuple[str, ...] = ()


# -- waiting for nodes


@dataclass(frozen=True, slots=True)
class AwaitApplied:
    """Asked by doors: wait until these nodes have acknowledged these revisions, for at most ``seconds``.

    Reply: ``Applied``. Nodes that are not connected are not waited for; they follow by themselves.
    """

    revisions: dict[str, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Applied:
    """Node ids: those that have acknowledged, and those that have not yet."""

    confirmed: tuple[str, ...]
    pending: tuple[str, ...]
