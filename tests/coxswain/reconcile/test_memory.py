"""What a link forgets when it meets an agent that was restarted, or a host that was set up anew, and what it keeps."""

from __future__ import annotations

import dataclasses

import pytest

from coxswain.reconcile.plan import remember
from coxswain.reconcile.types import LinkMemory, Observed
from tests.coxswain.reconcile.samples import key, peer, seen, service

NOW = 5000.0
BEFORE = LinkMemory(
    policy_confirmed="policy",
    uptime_s=90,
    wg_public_key=key("node"),
    applied_revision=5,
    applied_content="content",
    handshakes_seen_at=4990.0,
    last_stall_heal_at=4000.0,
    links={"cx0": "block:peer"},
    registered=frozenset({"cx0"}),
    xray_confirmed="inbound",
    xray_unsupported="v1",
    seen_at=4990.0,
    started_by=4900.0,
    agent_started_at=800.0,
)
KEPT = ("policy_confirmed", "last_stall_heal_at")
"""However the node comes back: the first says what to compare a policy with, the other is about ourselves."""


def after(observed: Observed, *, reconnected: bool = False) -> LinkMemory:
    made = remember(BEFORE, observed, NOW, reconnected=reconnected)
    assert [getattr(made, name) for name in KEPT] == [getattr(BEFORE, name) for name in KEPT]
    assert (made.seen_at, made.uptime_s) == (NOW, observed.uptime_s)
    return made


def asked(observed: Observed) -> Observed:
    """By our clock at NOW, and by the calendar at 1000."""
    return dataclasses.replace(observed, asked_at=(NOW, 1000.0))


def test_the_same_process_is_remembered_whole() -> None:
    made = after(asked(seen(peer(1), uptime=100)))
    assert made == dataclasses.replace(BEFORE, seen_at=NOW, uptime_s=100, highest_revision=5)


def test_an_agent_that_was_restarted_has_its_conf_but_not_what_it_was_told_since() -> None:
    made = after(asked(seen(peer(1), uptime=3)))
    assert made.policy_suspect
    assert made.links == {"cx0": "block:"}
    assert made.registered == frozenset()
    assert (made.xray_confirmed, made.xray_unsupported) == ("", "")
    assert made.handshakes_seen_at is None, "its silence is no stall"
    assert made.applied_content == "", "peers are in a file, but whether with their keys not every agent shows"
    assert (made.started_by, made.agent_started_at) == (NOW - 3, 997.0)


@pytest.mark.parametrize(
    "observed",
    [seen(peer(1), uptime=100, applied=0), dataclasses.replace(seen(peer(1), uptime=100), wg_public_key=key("another"))],
    ids=["without a revision", "with another key"],
)
def test_a_host_that_was_set_up_anew_has_nothing(observed: Observed) -> None:
    made = after(asked(observed))
    assert made.policy_suspect
    assert made.links == {"cx0": "block:"}
    assert made.registered == frozenset()
    assert (made.xray_confirmed, made.xray_unsupported, made.applied_content) == ("", "", "")
    assert made.wg_public_key == observed.wg_public_key
    assert made.applied_revision == observed.applied_revision
    assert made.handshakes_seen_at == 4990.0, "the data plane was not restarted by that"


def test_of_a_node_that_somebody_else_told_things_nothing_is_known_for_sure() -> None:
    """Another controller, or this one before its database was put back."""
    same = asked(seen(peer(1), uptime=100, applied=7))
    made = remember(BEFORE, same, NOW, ours=6)
    assert made.policy_suspect
    assert made.links == {"cx0": "block:"}
    assert (made.xray_confirmed, made.applied_content) == ("", "")
    assert (made.registered, made.xray_unsupported) == (frozenset({"cx0"}), "v1"), "it is the same process"
    assert remember(BEFORE, same, NOW, ours=7) == remember(BEFORE, same, NOW), "we pushed it, and were not answered"


def test_an_agent_that_does_not_tell_its_key_this_time_is_no_other() -> None:
    made = after(dataclasses.replace(seen(peer(1), uptime=100), wg_public_key=""))
    assert made.wg_public_key == key("node")
    assert not made.policy_suspect
    assert after(seen(peer(1), uptime=100)).agent_started_at == 800.0, "not asked when: what is known stays"


@pytest.mark.parametrize(("handshaking", "at"), [(1, NOW), (0, 4990.0)])
def test_handshakes_are_dated(handshaking: int, at: float) -> None:
    assert after(seen(peer(1), uptime=100, services=(service(1, handshaking),))).handshakes_seen_at == at


def test_one_that_answers_on_a_new_connection_has_to_be_older_than_the_last_look() -> None:
    """An uptime that is larger than the last one proves nothing where there was time for both."""
    assert after(seen(peer(1), uptime=9), reconnected=True).policy_suspect is True
    assert after(seen(peer(1), uptime=95), reconnected=True).policy_suspect is False
    assert remember(BEFORE, seen(uptime=95), 5200.0, reconnected=True).policy_suspect is True
    assert remember(BEFORE, seen(uptime=95), 5200.0).policy_suspect is False


def test_the_start_of_the_same_process_is_only_ever_found_to_be_earlier() -> None:
    """Uptimes are whole seconds, and an answer may have been long on its way."""
    assert after(seen(uptime=150)).started_by == NOW - 150
    assert after(seen(uptime=91)).started_by == 4900.0
    assert remember(LinkMemory(), seen(uptime=91), NOW).started_by == NOW - 91
    assert remember(LinkMemory(), asked(seen(uptime=91)), NOW).agent_started_at == 909.0
