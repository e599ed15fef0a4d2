"""What all tunnels and the embedded relay share, and what outlives each of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from actors.io_loop import IoLoop
from coxswain.errors import Refused
from coxswain.messages.ca import RelayCredentials
from coxswain.relay.contexts import Credentials
from coxswain.relay.yamux import Timing

__all__ = ["RelayServices"]


@dataclass
class RelayServices:
    """``socket``: where AccountSync is served. ``credentials`` None: not known yet. ``loops``: how many there have been."""

    io: IoLoop
    socket: Path
    timing: Timing | None = None
    credentials: RelayCredentials | None = None
    loops: int = 0

    def reset(self) -> None:
        """On a new loop: what stood on the old one is gone with it."""
        self.loops += 1

    def vouch(self, der: bytes) -> None:
        """For the certificate of a relay that was dialled. On the loop. Raises ``Refused`` if it is not one of the known."""
        serial = str(x509.load_der_x509_certificate(der).serial_number)
        if self.credentials is None or serial not in self.credentials.relay_serials:
            raise Refused(
                f"its certificate is not known here, or revoked (serial {serial}); was it issued after a backup that was "
                "restored? If the relay is to stay, renew it: cox relays renew"
            )

    def towards_fleet(self) -> Credentials | None:
        """For legs on which the other side has a certificate of the Fleet CA."""
        known = self.credentials
        return None if known is None else Credentials(known.chain_pem, known.key_pem, known.fleet_ca_pem)

    def towards_devices(self) -> Credentials | None:
        """For the leg on which devices come."""
        known = self.credentials
        return None if known is None else Credentials(known.chain_pem, known.key_pem, known.device_ca_pem)
