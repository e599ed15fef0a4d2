"""Is a link carrying? From what both ends show."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from coxswain.cascade.health import LinkHealth, edges_seen, health, links_in_use, said_of_down
from coxswain.messages.sessions import PeerCounters
from coxswain.model import Peer, Protocol
from coxswain.netpolicy import Transit
from coxswain.reconcile.types import ObservedPeer
from tests.coxswain.cascade.samples import key

NOW = 1_000_000.0
AWG = Protocol.AMNEZIAWG


@pytest.mark.parametrize(
    ("in_use_for", "handshake_ago", "expected"),
    [
        (None, None, LinkHealth.UNKNOWN),
        (10_000, None, LinkHealth.UNKNOWN),
        (None, 10, LinkHealth.UP),
        (10_000, 179, LinkHealth.UP),
        (None, 10_000, LinkHealth.IDLE),
        (None, NOW, LinkHealth.IDLE),
        (60, NOW, LinkHealth.IDLE),  # somebody just came
        (10_000, 250, LinkHealth.IDLE),  # somebody may just have gone
        (10_000, 301, LinkHealth.DOWN),
        (200, NOW, LinkHealth.DOWN),  # it never came up
    ],
)
def test_a_link_is_down_only_if_somebody_uses_it(
    in_use_for: float | None, handshake_ago: float | None, expected: LinkHealth
) -> None:
    since = None if in_use_for is None else NOW - in_use_for
    at = None if handshake_ago is None else NOW - handshake_ago
    assert health(since, at, NOW) is expected


def row(name: str, handshake: float, *ips: str) -> ObservedPeer:
    return ObservedPeer(key(name), frozenset(ips), None, PeerCounters(AWG, key(name), handshake, 0, 0))


def test_edge_peers_are_told_from_devices_and_their_times_by_our_clock() -> None:
    edge = Peer("nlk_1", "nod_a", "", AWG, key("entry"), ("10.7.0.2/32",))
    quiet = Peer("nlk_2", "nod_a", "", AWG, key("other"), ("10.7.0.3/32",))
    own = Peer("per_1", "nod_a", "dev_1", AWG, key("dev"), ("10.7.0.9/32",))
    rows = (row("dev", 5.0), row("entry", 600.0), row("other", 0.0), row("stranger", 7.0))
    assert edges_seen((own, edge, quiet), rows, 100.0) == (("nlk_1", 500.0), ("nlk_2", 0.0))
    assert edges_seen((own,), rows, 0.0) == ()


def test_a_link_is_in_use_while_a_client_is_there_that_goes_into_it() -> None:
    transits = (Transit("10.7.0.2/32", "awg1", 7100, 7100), Transit("10.7.0.3/32", "awg2", 7101, 7101))
    here, gone = row("a", NOW - 100, "10.7.0.2/32"), row("b", NOW - 200, "10.7.0.3/32")
    assert links_in_use(transits, (here, gone, row("c", 0.0, "10.7.0.3/32")), 0.0, NOW) == ("awg1",)
    assert links_in_use(transits, (gone,), -30.0, NOW) == ("awg2",), "a node whose clock is behind"
    assert links_in_use((), (here,), 0.0, NOW) == ()


def test_links_that_are_down_are_named_by_their_ends() -> None:
    health_to = {"fra": LinkHealth.DOWN, "zrh": LinkHealth.IDLE, "lon": LinkHealth.UP, "nyc": LinkHealth.UNKNOWN}
    views = [SimpleNamespace(entry="ams", exit=to, health=how) for to, how in health_to.items()]
    (said,) = said_of_down(views)
    assert said.startswith("the link from ams to fra is down")
