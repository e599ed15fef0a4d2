"""Provisioning: makes devices' credentials and peers what their profiles say, within the transaction of a change."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from actors.fleet.intents import tell_intents
from actors.fleet.state import FleetState
from coxswain.errors import AddressesExhausted
from coxswain.messages.accounts import Given, Unserved
from coxswain.model import Credential, Device, Peer
from coxswain.provisioning import keys
from coxswain.provisioning.assign import (
    Addresses,
    Assignment,
    Has,
    PeerKey,
    World,
    addresses_by,
    assign,
    new_peers,
    renumbered,
)
from coxswain.provisioning.document import tunnel_ip_v6
from coxswain.provisioning.offer import Offer
from coxswain.store import Tx
from coxswain.store import accounts as account_rows
from coxswain.store import fleet as rows
from coxswain.store import peers as peer_rows
from coxswain.store import profiles as profile_rows

__all__ = ["Outcome", "follow", "offer", "provision", "world"]


@dataclass
class Outcome:
    """What was done to devices; ``touched`` are the nodes whose peers are others now. ``without_address``: profiles
    (empty: every node) for which the subnet had none left; they are among the ``unserved`` as well.
    """

    touched: set[str] = field(default_factory=set)
    given: list[Given] = field(default_factory=list)
    unserved: list[Unserved] = field(default_factory=list)
    without_address: list[str] = field(default_factory=list)

    def check_served(self, profile_id: str | None = None) -> None:
        """Raises ``AddressesExhausted``, for whom it would all be in vain: this profile has no address, or, where none is
        named, a device has nothing at all for want of one.
        """
        lacks = profile_id in self.without_address
        if profile_id is None:
            lacks = bool(self.without_address) and not all(given.tunnel_ip for given in self.given)
        if lacks:
            raise AddressesExhausted(next(u.reason for u in self.unserved if u.profile_id in self.without_address))


def offer(fleet: FleetState) -> Offer:
    """What the configuration says now."""
    return Offer.of(fleet.settings)


def world(fleet: FleetState, tx: Tx) -> World:
    """What all devices have in common just now."""
    ordered = sorted(fleet.nodes.values(), key=lambda node: (node.created_at, node.id))
    return World({node.id: node for node in ordered}, fleet.path_entries(tx), offer(fleet))


def provision(fleet: FleetState, tx: Tx, device_ids: Sequence[str], *, rotate: bool = False) -> Outcome:
    """Brings these devices up to date. The caller bumps the revisions of what was touched, in the same transaction.

    Args:
        fleet: for the nodes, the configuration and the keyring.
        tx: the transaction of the change that is the reason for this.
        device_ids: those that are not there any more are passed over.
        rotate: new keys for all of them, at the addresses that they have.

    What needs an address when the subnet has none left is not served; it holds up nobody and nothing else. Whose request
    is in vain then, says so (``Outcome.check_served``).
    """
    outcome = Outcome()
    devices = account_rows.devices_by_id(tx, device_ids)
    known_ids = [device.id for device in devices]
    around = world(fleet, tx)
    profiles = profile_rows.profiles_of(tx, known_ids)
    credentials = profile_rows.credentials_of(tx, known_ids)
    peers = {d: [p for p in found if p.credential_id] for d, found in peer_rows.peers_of_devices(tx, known_ids).items()}
    if rotate:
        _rotate(fleet, tx, outcome, credentials, peers)
    planned = [(d, assign(d, Has(profiles[d.id], credentials[d.id], peers[d.id]), around)) for d in devices]
    # Before anything new: their addresses are free again.
    profile_rows.delete_credentials(tx, [c for _, assignment in planned for c in assignment.drop])
    minted = _mint(fleet, tx, outcome, planned, around.offer)
    addresses = _addresses(tx, around, [*credentials.values(), *minted.values()])
    removed: list[PeerKey] = []
    added: list[Peer] = []
    changed: list[str] = []
    for device, assignment in planned:
        dropped = set(assignment.drop)
        stays = [c for c in credentials[device.id] if c.id not in dropped]
        for credential_id, profile_id in assignment.adopt.items():
            profile_rows.reassign_credential(tx, credential_id, profile_id)
        has = [dataclasses.replace(c, profile_id=assignment.adopt.get(c.id, c.profile_id)) for c in stays]
        has += minted.get(device.id, [])
        gone = set(assignment.remove)
        gone.update((p.node_id, p.protocol, p.public_key) for p in peers[device.id] if p.credential_id in dropped)
        new = new_peers(assignment, has, peers[device.id], addresses, keys.new_preshared_key)
        stay = [p for p in peers[device.id] if (p.node_id, p.protocol, p.public_key) not in gone]
        moved = renumbered(has, stay, addresses)
        removed += assignment.remove
        added += new + moved
        outcome.touched.update(key[0] for key in gone)
        outcome.touched.update(p.node_id for p in new + moved)
        if gone or new or moved or assignment.adopt or minted.get(device.id) or rotate:
            changed.append(device.id)
        count = len(peers[device.id]) - len(gone) + len(new)
        there = {p.id: p for p in (*stay, *new, *moved)}
        outcome.given.append(_given(device, has, count, there.values(), changed=device.id in changed[-1:]))
        outcome.unserved += [Unserved(s.profile_id, s.name, s.reason) for s in assignment.skipped]
    rows.remove_peers(tx, removed)
    rows.put_peers(tx, added, now=fleet.now())
    account_rows.touch_profiles(tx, changed)
    return outcome


def follow(fleet: FleetState, revisions: dict[str, int]) -> None:
    """After the commit of a change to peers: memory, audit, and the links of the nodes concerned."""
    for node_id, revision in revisions.items():
        if node_id in fleet.nodes:
            fleet.nodes[node_id] = dataclasses.replace(fleet.nodes[node_id], config_revision=revision)
    fleet.peers_changed()
    tell_intents(fleet, tuple(revisions))


def _addresses(tx: Tx, around: World, held: Sequence[Sequence[Credential]]) -> Addresses:
    """What each credential's peers may send from."""
    found = (around.offer.address_v6(credential.address) for credentials in held for credential in credentials)
    return addresses_by(around, profile_rows.taken_by_hand(tx, [f"{address}/128" for address in found if address]))


def _given(device: Device, has: Sequence[Credential], count: int, peers: Iterable[Peer], *, changed: bool) -> Given:
    first, second = ("", "") if not has else (has[0].address, tunnel_ip_v6(has[0], peers))
    return Given(device.id, first, count, device.profile_revision + changed, second)


def _mint(
    fleet: FleetState, tx: Tx, outcome: Outcome, planned: Sequence[tuple[Device, Assignment]], around: Offer
) -> dict[str, list[Credential]]:
    """Keys and addresses for all that need some, by device; who comes first has what is left."""
    wanted = [(device.id, profile_id) for device, assignment in planned for profile_id in assignment.mint]
    if not wanted:
        return {}
    free = profile_rows.addresses_free(tx, around.first, around.last, len(wanted))
    if len(free) < len(wanted):
        _note_without(tx, outcome, wanted[len(free) :], around, len(free))
    found: dict[str, list[Credential]] = {}
    for (device_id, profile_id), number in zip(wanted, free, strict=False):
        address = str(ipaddress.IPv4Address(number))
        found.setdefault(device_id, []).append(keys.mint(fleet.keyring, device_id, profile_id, address))
    profile_rows.insert_credentials(tx, [c for made in found.values() for c in made], now=fleet.now())
    return found


def _note_without(tx: Tx, outcome: Outcome, lacking: Sequence[tuple[str, str]], around: Offer, left: int) -> None:
    reason = f"fleet.vpn_subnet: {around.subnet} has {left} tunnel addresses left, and {left + len(lacking)} are needed"
    known = profile_rows.profiles_of(tx, sorted({device_id for device_id, _ in lacking}))
    names = {profile.id: profile.name for profiles in known.values() for profile in profiles}
    for _, profile_id in lacking:
        outcome.without_address.append(profile_id)
        outcome.unserved.append(Unserved(profile_id, names.get(profile_id, "every node"), reason))


def _rotate(
    fleet: FleetState,
    tx: Tx,
    outcome: Outcome,
    credentials: dict[str, list[Credential]],
    peers: dict[str, list[Peer]],
) -> None:
    """New keys in the same rows; the peers under the old ones go, so that those under the new ones are missing."""
    for device_id, held in credentials.items():
        renewed = [keys.mint(fleet.keyring, c.device_id, c.profile_id, c.address, credential_id=c.id) for c in held]
        profile_rows.replace_keys(tx, renewed)
        rows.remove_peers(tx, [(p.node_id, p.protocol, p.public_key) for p in peers[device_id]])
        outcome.touched.update(p.node_id for p in peers[device_id])
        credentials[device_id] = renewed
        # Where it had a peer, it has one again, whether or not the node is ready just now.
        replaced = [_renewed(p, renewed) for p in peers[device_id]]
        rows.put_peers(tx, replaced, now=fleet.now())
        peers[device_id] = replaced


def _renewed(peer: Peer, renewed: Sequence[Credential]) -> Peer:
    credential = next(c for c in renewed if c.id == peer.credential_id)
    if not peer.preshared_key and peer.flow:
        return dataclasses.replace(peer, public_key=credential.uuid)
    return dataclasses.replace(peer, public_key=credential.wg_public_key, preshared_key=keys.new_preshared_key())
