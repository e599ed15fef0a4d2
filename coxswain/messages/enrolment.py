"""Messages about joining the fleet: invitations, claims, what devices fetch (accounts-profiles.md 2, 3, 5).

Doors ask ``accounts``; it asks ``certificate_authority`` for leaves and ``fleet`` for everything that touches devices, so
that a claim is one transaction of ``fleet``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coxswain.messages.audit import Caller

__all__ = [
    "AccountKey",
    "Bundle",
    "ClaimDevice",
    "Claimed",
    "DeviceRecord",
    "FetchBundle",
    "GetIdentity",
    "Invite",
    "IssueDevice",
    "IssueIdentity",
    "IssueInvite",
    "IssuedIdentity",
    "ListInvites",
    "NewIdentity",
    "RevokeInvite",
    "Ticket",
]


@dataclass(frozen=True, slots=True)
class Ticket:
    """One invitation, without its secret. Times are epoch seconds.

    Attributes:
        device_id: the device that it binds again; empty: it makes a new one.
        used_at: when it was redeemed; None: not yet.
        used_by_device_id: by which device; empty: none, or one that is gone.
        claims: how often it was redeemed (``redeem_again``).
        relay: where the device finds a relay; empty: where the configuration says by then.
    """

    id: str
    user_id: str
    device_id: str
    created_at: float
    expires_at: float
    used_at: float | None = None
    used_by_device_id: str = ""
    revoked_at: float | None = None
    claims: int = 0
    relay: str = ""


@dataclass(frozen=True, slots=True)
class IssueInvite:
    """Asked by doors of ``accounts``. Reply: ``Committed[Invite]``.

    ``user`` is an id or e-mail address; ``relay`` empty: ``relay.public_endpoint``; ``ttl_s`` 0: what
    ``accounts.invite_ttl_seconds`` says; ``device_id``: the device that is enrolled anew, with its profiles.

    Raises ``NotFound``, ``InvalidInput``; ``Conflict``: there is no relay to name, an admin, a user or device that is not
    active.
    """

    caller: Caller
    user: str
    relay: str = ""
    ttl_s: int = 0
    device_id: str = ""


@dataclass(frozen=True, slots=True)
class Invite:
    """A fresh invitation. ``url`` is the join link, with the secret, which is told this once and stored nowhere."""

    ticket: Ticket
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ListInvites:
    """Asked by doors of ``accounts``. Reply: list of ``Ticket`` of that user (id or e-mail), newest first, the first
    ``limit`` after the id ``after``. Those that expired a week ago are gone.
    """

    user: str
    after: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class RevokeInvite:
    """Asked by doors of ``accounts``: its link is of no use from now on. Reply: ``Committed[Ticket]``.

    Raises ``NotFound``; ``Conflict``: it is revoked already.
    """

    caller: Caller
    id: str


# -- identities and bundles: ``accounts`` asks ``fleet``


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """By what a device is known from now on. ``encryption_key``: X25519, 32 bytes; empty: its account's has to do."""

    fingerprint: str
    serial: str
    not_after: float
    encryption_key: bytes = b""


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device that enrolled, and whether it, and its user, may use the fleet. Times are epoch seconds."""

    device_id: str
    user_id: str
    fingerprint: str
    serial: str
    not_after: float
    encryption_key: bytes
    enrolled_at: float
    last_sync_at: float | None
    last_sync_revision: int | None
    last_sync_relay: str
    device_status: str
    user_status: str


@dataclass(frozen=True, slots=True)
class AccountKey:
    """What a legacy account left here: its public key, and the private one under a passphrase that we do not know."""

    public_key: bytes
    wrapped_private_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClaimDevice:
    """Redeems a ticket: one transaction with the device, its keys, addresses and peers, its first bundle and the record.

    ``relay``: which relay said so. Reply: ``Committed[Claimed]``. Raises ``Unauthenticated`` (unknown, used, expired and
    revoked tickets are not told apart), ``Refused`` (the user or the device is not active), ``AddressesExhausted``; nothing
    is used up then.
    """

    token_hash: str = field(repr=False)
    name: str
    platform: str
    identity: NewIdentity
    relay: str = ""


@dataclass(frozen=True, slots=True)
class IssueDevice:
    """Makes a device with an identity that is handed out as a file. Reply: ``Committed[Claimed]``.

    ``user`` is an id or e-mail address; ``path_id``: with a profile over this path. Raises ``NotFound``, ``Conflict``,
    ``InvalidInput``, ``AddressesExhausted``.
    """

    caller: Caller
    user: str
    name: str
    platform: str
    identity: NewIdentity
    path_id: str = ""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What came of it. ``revisions``: of the nodes that have to follow; ``signer``: of the bundle."""

    device_id: str
    user_id: str
    user_name: str
    tunnel_ip: str
    peer_count: int
    profile_revision: int
    signer: bytes
    revisions: dict[str, int]
    tunnel_ip_v6: str = ""


@dataclass(frozen=True, slots=True)
class FetchBundle:
    """The newest bundle of a device, sealed anew if what is in it has changed. Reply: ``Bundle``.

    ``relay``: through which it is fetched. Raises ``NotFound`` (there is no key to seal it to), ``Refused`` (the user or the
    device is not active), ``Conflict`` (more than clients take).
    """

    device_id: str
    relay: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """``ciphertext``: a SealedBundle's JSON. ``wrapped_private_key``: empty for a device with a key of its own."""

    ciphertext: str
    revision: int
    signer: bytes
    wrapped_private_key: bytes = field(default=b"", repr=False)


# -- identities that are handed out as files


@dataclass(frozen=True, slots=True)
class IssueIdentity:
    """Asked by doors of ``accounts``: a new device, all of whose keys are made here and handed out as one file. Reply:
    ``Committed[IssuedIdentity]``.

    ``relay`` empty: ``relay.public_endpoint``; ``server_name`` empty: the relay's host. ``path_id``: with a profile over
    this path. Raises as ``IssueDevice`` does; ``Conflict``: there is no relay to name.
    """

    caller: Caller
    user: str
    name: str
    platform: str = ""
    path_id: str = ""
    relay: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class IssuedIdentity:
    """``text``: a ``.pharosid``, with private keys that are told this once and stored nowhere."""

    claimed: Claimed
    relay: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class GetIdentity:
    """Asked by doors of ``fleet``. Reply: ``DeviceRecord``; None: the device never enrolled, or is not there."""

    device_id: str
