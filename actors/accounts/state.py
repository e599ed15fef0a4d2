"""What the parts of ``accounts`` share. Only the thread of the actor touches it."""

from __future__ import annotations

from actors.supervision import Context
from coxswain.accounts.buckets import Buckets, Rate
from coxswain.keyring import Keyring
from coxswain.messages.audit import OutboxGrew
from coxswain.messages.ca import CaView, DescribeCa
from coxswain.provisioning.offer import Settings
from coxswain.store import Store

__all__ = ["AccountsState"]

_CA_S = 5.0


class AccountsState:
    """See the module.

    Attributes:
        claims: of each relay; what succeeded costs nothing. ``all_claims``: of all of them. ``claims_of_one``: of each
            ticket that is good, whose holder is not kept out by what others try.
        authentications: of each device, by its certificate.
        fetches: of each device.
        passwords_of_one: of each account, however the guesser came here. ``passwords``: of all of them.
        refusals: of claims that get an audit record of their own; ``not_recorded`` counts the others since the last one.
    """

    def __init__(self, context: Context, store: Store, keyring: Keyring, settings: Settings) -> None:
        self.context = context
        self.store = store
        self.keyring = keyring
        self.settings = settings
        self._root = ""
        self.claims = Buckets(Rate(burst=20, per_s=3.0))
        self.all_claims = Buckets(Rate(burst=60, per_s=1.0))
        self.claims_of_one = Buckets(Rate(burst=5, per_s=6.0))
        self.authentications = Buckets(Rate(burst=60, per_s=2.0))
        self.fetches = Buckets(Rate(burst=60, per_s=2.0))
        self.passwords_of_one = Buckets(Rate(burst=5, per_s=60.0))
        self.passwords = Buckets(Rate(burst=20, per_s=2.0))
        self.refusals = Buckets(Rate(burst=30, per_s=2.0))
        self.not_recorded = 0

    def now(self) -> float:
        return self.context.clock.now()

    def outbox_grew(self) -> None:
        self.context.tell("audit_writer", OutboxGrew())

    def root_fingerprint(self) -> str:
        """What join links pin. The root never changes while the daemon runs."""
        if not self._root:
            found: CaView = self.context.ask("certificate_authority", DescribeCa(), deadline=_CA_S)
            self._root = next(a.fingerprint for a in found.authorities if a.role == "root")
        return self._root
