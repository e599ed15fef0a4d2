"""Every error that an operator, a script or another module may meet, and what each one means at each door.

The tree::

    CoxswainError
    ├── InvalidInput            a value that cannot be accepted; names the field, the value and what would be
    │   ├── NothingToInstall    no program was given, and the configuration names none
    │   ├── TooLarge            more bytes than are taken
    │   └── UnknownMediaType    a body that is not called what it has to be
    ├── NotFound                no such record
    ├── Conflict                the change does not fit the present state
    │   ├── StaleVersion        somebody else changed the record first
    │   ├── AlreadyExists       the name or key is taken
    │   ├── StillUsed           something else refers to it
    │   └── AddressesExhausted  no tunnel address is free
    ├── Refused                 fail closed: permissions, a foreign certificate, a store of a newer schema
    │   ├── Unauthenticated     no credential, or one that is not good (any more)
    │   ├── LoosePermissions
    │   ├── StoreTooNew
    │   ├── StateDirectoryHeld
    │   └── KeyUnavailable
    ├── Unavailable             a part of the system is not there just now; trying again later may work
    │   ├── DaemonNotRunning
    │   ├── DeadlineExceeded
    │   ├── StoreUnavailable
    │   └── Throttled           too many attempts
    └── NodeFailure             a node answered wrongly, or not at all
        ├── NodeUnreachable
        ├── NodeRefused
        ├── NodeMisbehaved
        └── SourceFailure       a place that something is fetched from, likewise

``DOORS`` maps each class to its HTTP status and to the exit code of ``cox``. A class that is not in the table takes
the row of its nearest ancestor.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "DOORS",
    "AddressesExhausted",
    "AlreadyExists",
    "Conflict",
    "CoxswainError",
    "DaemonNotRunning",
    "DeadlineExceeded",
    "Door",
    "InvalidInput",
    "KeyUnavailable",
    "LoosePermissions",
    "NodeFailure",
    "NodeMisbehaved",
    "NodeRefused",
    "NodeUnreachable",
    "NotFound",
    "NothingToInstall",
    "Refused",
    "SourceFailure",
    "StaleVersion",
    "StateDirectoryHeld",
    "StillUsed",
    "StoreTooNew",
    "StoreUnavailable",
    "Throttled",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "UnknownMediaType",
    "class_called",
    "door_of",
]


class CoxswainError(Exception):
    """Root of all expected errors. ``str(error)`` is one sentence for the operator; ``remedy`` says what to do next."""

    remedy: str = ""

    audited: int | None = None
    """The outbox row with the record of this failure; 0: it is only counted; None: nobody has recorded it yet."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        if remedy:
            self.remedy = remedy


class InvalidInput(CoxswainError):
    """A value that cannot be accepted. The message names the field, the value and what would be accepted."""


class NothingToInstall(InvalidInput):
    """No program was given, and the configuration names none: existing callers, who cannot give one, know it as a 502."""


class TooLarge(InvalidInput):
    """More bytes than are taken."""


class UnknownMediaType(InvalidInput):
    """A body that is not called what it has to be."""


class NotFound(CoxswainError):
    """No such record."""


class Conflict(CoxswainError):
    """The change does not fit the present state."""


class StaleVersion(Conflict):
    """Somebody else changed the record since its author read it."""

    remedy = "Read the record again, look at what changed, and repeat the change."

    def __init__(self, message: str, *, current: int = 0) -> None:
        super().__init__(message)
        self.current = current

    @classmethod
    def of(cls, record: str, seen: int, current: int) -> StaleVersion:
        """``record``: what it is, and its name; ``seen``: the version that the author read."""
        return cls(f"{record}: version {seen} was changed by somebody else; it is {current} now", current=current)


class AlreadyExists(Conflict):
    """The name or key is taken."""


class StillUsed(Conflict):
    """Something else refers to it. ``count``: how many."""

    def __init__(self, message: str, *, count: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.count = count


class AddressesExhausted(Conflict):
    """No tunnel address is free."""

    remedy = "Delete or revoke devices that are not needed any more, or widen fleet.vpn_subnet."


class Refused(CoxswainError):
    """Fail closed."""


class Unauthenticated(Refused):
    """No credential, or one that is unknown, expired or revoked. Which of these, only the audit log is told."""


class LoosePermissions(Refused):
    """A file or directory that holds secrets can be read or written by others."""


class StoreTooNew(Refused):
    """The store was written by a newer release."""

    remedy = "Run the release that wrote it, or restore a backup from before the upgrade."


class StateDirectoryHeld(Refused):
    """Another daemon works on this state."""


class KeyUnavailable(Refused):
    """The key that encrypts the CA at rest is missing or wrong."""


class Unavailable(CoxswainError):
    """A part of the system is not there just now."""


class DaemonNotRunning(Unavailable):
    """Nothing answers on the control socket."""

    remedy = "Start it with: cox serve"


class DeadlineExceeded(Unavailable):
    """No answer in time."""


class StoreUnavailable(Unavailable):
    """The database does not answer."""


class Throttled(Unavailable):
    """Too many attempts. ``retry_after``: seconds."""

    def __init__(self, message: str, *, retry_after: float, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class NodeFailure(CoxswainError):
    """A node answered wrongly, or not at all."""


class NodeUnreachable(NodeFailure):
    """No connection, or no answer in time."""


class NodeRefused(NodeFailure):
    """The node answered with an error status."""


class NodeMisbehaved(NodeFailure):
    """The node broke the contract: an answer that cannot be true or cannot be read."""


class SourceFailure(NodeFailure):
    """What was to be fetched over the network could not be, or is not what it has to be. No node has part in it."""


@dataclass(frozen=True, slots=True)
class Door:
    """What one error class looks like from outside.

    Attributes:
        http: HTTP status.
        exit_code: exit status of ``cox``.
    """

    http: int
    exit_code: int


DOORS: dict[type[CoxswainError], Door] = {
    CoxswainError: Door(500, 1),
    InvalidInput: Door(400, 2),
    NothingToInstall: Door(502, 2),
    TooLarge: Door(413, 2),
    UnknownMediaType: Door(415, 2),
    NotFound: Door(404, 4),
    Conflict: Door(409, 5),
    Refused: Door(403, 6),
    Unauthenticated: Door(401, 6),
    Unavailable: Door(503, 7),
    DaemonNotRunning: Door(503, 3),
    DeadlineExceeded: Door(504, 7),
    Throttled: Door(429, 7),
    NodeFailure: Door(502, 8),
}


def class_called(name: str) -> type[CoxswainError]:
    """The class that an operation failed with, by its name: ``NodeFailure`` if it is none of these. So it is where it waited
    in vain, as the daemon itself did answer in time.
    """
    cls = globals().get(name)
    if not (isinstance(cls, type) and issubclass(cls, CoxswainError)) or cls in (CoxswainError, DeadlineExceeded):
        return NodeFailure
    return cls


def door_of(error: CoxswainError) -> Door:
    """Returns the row of the nearest ancestor of ``error`` in ``DOORS``."""
    for cls in type(error).__mro__:
        if cls in DOORS:
            return DOORS[cls]
    return DOORS[CoxswainError]
