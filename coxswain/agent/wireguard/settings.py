"""What an operator may set of the real data plane: the section ``data_plane`` of ``node.yaml`` (``agent/config.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

__all__ = ["FirewallChoice", "WireguardSettings"]


class FirewallChoice(StrEnum):
    """How the network policy is put in force. ``auto``: nftables if the host has it and no other firewall is in its way."""

    AUTO = "auto"
    NFTABLES = "nftables"
    IPTABLES = "iptables"


@dataclass(frozen=True, slots=True)
class WireguardSettings:
    """``conf_directory``: where awg-quick looks for the confs of AmneziaWG (node-contract.md 3.4)."""

    conf_directory: Path = Path("/etc/amnezia/amneziawg")
    firewall: FirewallChoice = FirewallChoice.AUTO
