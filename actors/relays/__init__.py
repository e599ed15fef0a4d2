"""``relays``: what brings devices to AccountSync: one reverse tunnel per remote relay, and the embedded relay.

``supervisor`` holds the set, ``tunnel`` is the state machine of one tunnel, ``embedded`` the relay inside the daemon, and
``services`` what they share. Sockets are on the I/O loop, in ``coxswain.relay``.
"""

from actors.relays.services import RelayServices
from actors.relays.supervisor import Relays

__all__ = ["RelayServices", "Relays"]
