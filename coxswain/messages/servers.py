"""Messages to ``servers``, the owner of machines, relays and the controller's SSH key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coxswain.messages.audit import Caller
from coxswain.servers import Relay

__all__ = [
    "AddRelay",
    "AddressesChanged",
    "CheckNoHop",
    "EditRelay",
    "EditServer",
    "FindServer",
    "GetAllowance",
    "GetRelay",
    "GetServer",
    "GetSshIdentity",
    "HostKeyOffered",
    "ListRelays",
    "ListServers",
    "PutServer",
    "RegisterSelf",
    "RemoveRelay",
    "RemoveServer",
    "TrustServer",
]


@dataclass(frozen=True, slots=True)
class GetSshIdentity:
    """Asked by doors (for its public line) and by steps of operations (to log in). Reply: ``SshIdentity``."""


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """Told by ``fleet``: a node came, went, or has another control address. A hint: relays are told late."""


@dataclass(frozen=True, slots=True)
class GetAllowance:
    """Where a relay has to connect as a hop, for onboarding. Reply: ``coxswain.control_path.targets.Allowance``. Raises
    ``NotFound``.
    """

    relay_id: str


@dataclass(frozen=True, slots=True)
class ListServers:
    """Reply: list of ``Server``, oldest first."""


@dataclass(frozen=True, slots=True)
class GetServer:
    """``key`` is an id, a name or an address. Reply: ``Server``. Raises ``NotFound``."""

    key: str


@dataclass(frozen=True, slots=True)
class FindServer:
    """By address. Reply: ``Server`` or None."""

    ssh_host: str
    ssh_port: int


@dataclass(frozen=True, slots=True)
class PutServer:
    """Asked by the operation ``server.add`` when the host was reached: a new row, or the present one of this address with
    user, name, region and facts renewed (empty: kept). Reply: ``Committed[Server]``. Raises ``Conflict``: another host key
    is pinned.
    """

    caller: Caller
    ssh_host: str
    ssh_port: int
    ssh_user: str
    ssh_host_key: str
    name: str = ""
    region: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RegisterSelf:
    """The controller's own machine; once. Reply: ``Committed[Server]``. ``host`` empty: kept, or found out."""

    caller: Caller
    host: str = ""


@dataclass(frozen=True, slots=True)
class HostKeyOffered:
    """Told by steps of operations: the host showed another key than the pinned one, and was refused."""

    server_id: str
    host_key: str


@dataclass(frozen=True, slots=True)
class TrustServer:
    """Asked by doors: which key is the machine's. ``fingerprint`` is that of the one that was offered and refused, which is
    pinned then, or of the pinned one, which stays. Reply: ``Committed[Server]``. Raises ``Conflict``, ``StaleVersion``.
    """

    caller: Caller
    id: str
    fingerprint: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class EditServer:
    """Asked by doors. What is None stays; the pinned host key always does, so that at another address, too, only this
    machine is let in. Reply: ``Committed[Server]``. Raises ``AlreadyExists``, ``Conflict``: the controller's own machine
    has its address from ``RegisterSelf``, and nobody logs in to it; ``StaleVersion``.
    """

    caller: Caller
    id: str
    version: int
    name: str | None = None
    region: str | None = None
    ssh_host: str | None = None
    ssh_port: int | None = None
    ssh_user: str | None = None


@dataclass(frozen=True, slots=True)
class RemoveServer:
    """Takes a machine out of the inventory. Reply: ``Committed[Server]``. Raises ``Conflict``: it is the controller's own,
    or nodes or relays are on it.
    """

    caller: Caller
    id: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class ListRelays:
    """Reply: list of ``Relay``, oldest first."""


@dataclass(frozen=True, slots=True)
class GetRelay:
    """``key`` is an id or a name. Reply: ``Relay``. Raises ``NotFound``."""

    key: str


@dataclass(frozen=True, slots=True)
class AddRelay:
    """Asked by the operation ``relay.add``. Id and times of ``relay`` are chosen by the owner, and its name and hop if
    empty or 0 while it has an egress endpoint. Reply: ``Committed[Relay]``. Raises ``AlreadyExists``.
    """

    caller: Caller
    relay: Relay


@dataclass(frozen=True, slots=True)
class EditRelay:
    """Changes the fields in ``changes``. ``version`` None: whatever it is now. ``action``: for the audit log. Reply:
    ``Committed[Relay]``.
    """

    caller: Caller
    id: str
    changes: Mapping[str, Any]
    action: str = "relay.update"
    version: int | None = None


@dataclass(frozen=True, slots=True)
class RemoveRelay:
    """Reply: ``Committed[Relay]`` (the removed one)."""

    caller: Caller
    id: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class CheckNoHop:
    """Asked before a relay is taken off its machine. Reply: None. Raises ``Conflict``: it is a hop of a control path."""

    key: str
