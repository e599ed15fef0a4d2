"""What a node says of itself, as a person reads it."""

from __future__ import annotations

import dataclasses

from coxswain.messages.sessions import PeerCounters
from coxswain.reconcile.seen import peers_seen, services_seen
from tests.coxswain.reconcile.samples import AWG, key, peer, seen, service, shown, wanted


def test_services_are_told_as_they_are() -> None:
    (told,) = services_seen(seen(services=(service(5, 3, 12),)))
    assert (told.protocol, told.running, told.peers, told.handshaking, told.handshake_age_s) == (AWG, True, 5, 3, 12)


def test_peers_come_the_latest_first_with_whose_they_are_and_no_more_than_asked_for() -> None:
    def was_there(number: int, at: float) -> object:
        counters = PeerCounters(AWG, key(number), at, 1, 2, f"198.51.100.{number}:1")
        return dataclasses.replace(shown(peer(number)), counters=counters)

    observed = dataclasses.replace(seen(), peers=tuple(was_there(n, at) for n, at in ((1, 0.0), (2, 50.0), (3, 90.0))))
    told = peers_seen(wanted(peer(1), peer(2)), observed, most=2)
    assert [(p.device_id, p.last_handshake, p.endpoint) for p in told] == [
        ("", 90.0, "198.51.100.3:1"), ("dev_2", 50.0, "198.51.100.2:1"),
    ]  # fmt: skip


def test_a_node_whose_peers_were_not_asked_for_has_none_to_tell() -> None:
    assert peers_seen(wanted(peer(1)), seen(asked=False)) == ()
