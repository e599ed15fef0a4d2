"""What the configuration offers to devices."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Protocol

from coxswain.errors import Conflict

__all__ = ["SUBNETS_V6", "Offer", "Place", "Rotation", "Settings", "decoy", "is_subnet_v6"]

SUBNETS_V6 = "network of fd00::/8, /48 to /64, with random digits, such as fd5e:1f7a:93c4::/64"
"""What ``fleet.vpn_subnet_v6`` may be."""

_FIRST = 2
"""The lowest tunnel address is network + 2 (accounts-profiles.md 6.1)."""


class Settings(Protocol):
    """Configuration values by dotted key, as they are now (``coxswain.config.live``)."""

    def __getitem__(self, name: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Rotation:
    """How clients change between endpoints (fleet-model.md 7). Seconds."""

    enabled: bool = False
    interval_seconds: int = 600
    jitter_seconds: int = 120


@dataclass(frozen=True, slots=True)
class Place:
    """Where the controller stands on clients' maps, as its operator says. Degrees."""

    city: str
    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Offer:
    """See the module. ``subnet``: tunnel addresses; ``subnet_v6`` None: of IPv4 only. ``decoy_site``: whom REALITY pretends
    to be where a node has no decoy of its own, with a port or without. ``place`` None: nobody is told.
    """

    subnet: ipaddress.IPv4Network = ipaddress.IPv4Network("10.86.0.0/16")
    amneziawg: bool = True
    xray: bool = False
    decoy_site: str = "www.microsoft.com"
    rotation: Rotation = Rotation()
    place: Place | None = None
    subnet_v6: ipaddress.IPv6Network | None = None

    def address_v6(self, address: str) -> str:
        """The IPv6 address of whoever has this IPv4 one: it ends in it. So it is one device's exactly when that one is, it
        is there for every device as soon as there is a subnet, and no two allocations can disagree. Empty: none.
        """
        if self.subnet_v6 is None:
            return ""
        return str(self.subnet_v6.network_address + int(ipaddress.IPv4Address(address)))

    @property
    def first(self) -> int:
        """The lowest address that a device may have."""
        return int(self.subnet.network_address) + _FIRST

    @property
    def last(self) -> int:
        """The highest; the broadcast address is nobody's."""
        return int(self.subnet.broadcast_address) - 1

    @staticmethod
    def of(settings: Settings) -> Offer:
        """From configuration values by dotted key. Raises ``Conflict`` if ``fleet.vpn_subnet`` is none of IPv4, or
        ``fleet.vpn_subnet_v6`` neither empty nor one of IPv6.
        """
        try:
            subnet = ipaddress.IPv4Network(settings["fleet.vpn_subnet"])
        except ValueError:
            raise Conflict(
                f"fleet.vpn_subnet: {settings['fleet.vpn_subnet']!r} is no IPv4 network, and devices have IPv4 addresses",
                remedy="Set fleet.vpn_subnet to a network such as 10.86.0.0/16 and start the daemon again.",
            ) from None
        return Offer(
            subnet,
            settings["protocols.amneziawg"],
            settings["protocols.xray"],
            settings["reality.decoy_site"],
            Rotation(
                settings["fleet.rotation.enabled"],
                settings["fleet.rotation.interval_seconds"],
                settings["fleet.rotation.jitter_seconds"],
            ),
            _place(settings),
            _subnet_v6(settings["fleet.vpn_subnet_v6"]),
        )


def is_subnet_v6(text: str) -> bool:
    """Is it a unique local network, /48 to /64, that somebody drew at random (RFC 4193, section 3.2)? One with a group of
    zeros was not: it is that of many home routers, or of a cloud's metadata service.
    """
    try:
        network = ipaddress.IPv6Network(text)
    except ValueError:
        return False
    groups = network.network_address.exploded.split(":")
    return groups[0].startswith("fd") and 48 <= network.prefixlen <= 64 and "0000" not in groups[1:3]


def _subnet_v6(text: str) -> ipaddress.IPv6Network | None:
    if text and not is_subnet_v6(text):
        raise Conflict(
            f"fleet.vpn_subnet_v6: {text!r} is no {SUBNETS_V6}",
            remedy="Leave it empty, or set it to one that you drew yourself, and start the daemon again.",
        )
    return ipaddress.IPv6Network(text) if text else None


def _place(settings: Settings) -> Place | None:
    latitude, longitude = settings["control_location.lat"], settings["control_location.lon"]
    if not latitude and not longitude:
        return None
    return Place(settings["control_location.city"], float(latitude), float(longitude))


def decoy(site: str) -> tuple[str, str]:
    """``reality.decoy_site`` as the node dials it (``host:port``) and as its server name (accounts-profiles.md 4.2)."""
    host, colon, port = site.rpartition(":")
    if colon and port.isdigit() and not host.endswith(":"):
        return site, host.strip("[]")
    return f"{site}:443", site.strip("[]")
