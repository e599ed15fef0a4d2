"""Five years later: each intermediate hands over to its heir, and nobody who follows is cut off. The calendar is moved."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from actors.certificate_authority import CertificateAuthority, _CheckRenewal
from actors.supervision import ChildSpec, System
from coxswain.clock import SystemClock
from coxswain.keyring import Keyring, KeySource, load_secret, make_key_file, open_keyring
from coxswain.messages.audit import Caller
from coxswain.messages.ca import CaView, DescribeCa, GetLinkCredentials, IssuedNodeCertificate, IssueNodeCertificate
from coxswain.model import Node
from coxswain.store import Store
from coxswain.store import fleet as fleet_rows
from tests.coxswain.pki.test_csr import request

CALLER = Caller("ci", "token")
YEAR = 365.0
HEIRS = 5 * YEAR * 2 / 3 + 1
HANDOVER = 5 * YEAR * 5 / 6 + 1
OVER = 5 * YEAR + 1


class Shifted(SystemClock):
    """The machine's clock, with the calendar moved."""

    days = 0.0

    def now(self) -> float:
        return super().now() + self.days * 86_400.0


class Ca:
    """The actor, and what tests ask of it."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self.store = store
        self.keyring = keyring
        self.clock = Shifted()
        self.system = self._run()

    def _run(self) -> System:
        spec = ChildSpec("certificate_authority", CertificateAuthority, {"store": self.store, "keyring": self.keyring})
        system = System(children=(spec,), clock=self.clock, rng=random.Random(1), allow_chaos=True)
        system.start()
        assert system.wait_up(10)
        return system

    def restart(self) -> None:
        self.system.stop(10)
        self.system = self._run()

    def ask(self, message: Any) -> Any:
        return self.system.ask("certificate_authority", message, deadline=10)

    def on(self, days: float) -> CaView:
        """What there is on that day, once it has looked."""
        self.clock.days = days
        self.system.tell("certificate_authority", _CheckRenewal())
        view: CaView = self.ask(DescribeCa())
        return view

    def enrol(self, node_id: str) -> IssuedNodeCertificate:
        issued: IssuedNodeCertificate = self.ask(IssueNodeCertificate(CALLER, node_id, request())).value
        return issued

    def node(self, name: str) -> str:
        with self.store.write() as tx:
            fleet_rows.insert_node(tx, Node(id=f"nod_{name}", name=name, control_addr="203.0.113.7:8443"))
        return f"nod_{name}"

    def actions(self) -> list[str]:
        with self.store.read() as tx:
            return [row[0] for row in tx.execute("SELECT action FROM audit_outbox ORDER BY outbox_id")]


@pytest.fixture
def ca(store: Store, tmp_path: Path) -> Iterator[Ca]:
    make_key_file(tmp_path / "ca.key")
    with store.write() as tx:
        keyring = open_keyring(tx, load_secret(KeySource.FILE, key_file=tmp_path / "ca.key", environ={}))
    made = Ca(store, keyring)
    yield made
    made.system.stop(10)


def serials(view: CaView, role: str) -> dict[str, list[str]]:
    """By state."""
    found: dict[str, list[str]] = {}
    for authority in view.authorities:
        if authority.role == role:
            found.setdefault(authority.state, []).append(authority.serial)
    return found


def issuer_serial(ca: Ca) -> str:
    """Of the intermediate that the controller shows behind its leaf."""
    _, intermediate = x509.load_pem_x509_certificates(ca.ask(GetLinkCredentials()).chain_pem)
    return str(intermediate.serial_number)


def anchors(pem: bytes) -> list[str]:
    return [str(certificate.serial_number) for certificate in x509.load_pem_x509_certificates(pem)]


@pytest.mark.parametrize("role", ["fleet", "device", "control"])
def test_an_intermediate_hands_over_before_it_ends(ca: Ca, role: str) -> None:
    (first,) = serials(ca.on(0), role)["signs"]
    assert serials(ca.on(HEIRS - 2), role) == {"signs": [first]}
    with_heir = serials(ca.on(HEIRS), role)
    (heir,) = with_heir["heir"]
    assert with_heir["signs"] == [first]
    assert serials(ca.on(HANDOVER), role) == {"signs": [heir], "retired": [first]}
    assert serials(ca.on(OVER), role) == {"signs": [heir]}, "it is trusted no longer than it lives"
    assert {"ca.heir", "ca.handover"} <= set(ca.actions())


def test_it_is_the_same_after_a_restart_and_each_step_is_taken_once(ca: Ca) -> None:
    for days in (HEIRS, HANDOVER):
        before = ca.on(days)
        ca.restart()
        assert ca.on(days + 1).authorities == before.authorities
        assert (ca.actions().count("ca.heir"), ca.actions().count("ca.handover")) == (3, 3 if days == HANDOVER else 0)


def test_a_node_is_given_both_and_is_due_until_it_has_them(ca: Ca) -> None:
    node = ca.node("ams")
    ca.on(HEIRS - 10)
    assert len(anchors(ca.enrol(node).ca_crt)) == 1
    (leaf,) = [leaf for leaf in ca.on(HEIRS).leaves if leaf.holder == node]
    assert leaf.renewal_due, "renewals start its renewal, days after it was enrolled"
    issued = ca.enrol(node)
    view = ca.on(HEIRS + 1)
    found = serials(view, "control")
    assert anchors(issued.ca_crt) == found["signs"] + found["heir"]
    newest = next(leaf for leaf in view.leaves if leaf.holder == node)
    assert not newest.renewal_due


def test_the_controller_keeps_its_issuer_while_a_node_does_not_trust_the_heir(ca: Ca) -> None:
    node = ca.node("ams")
    ca.on(HANDOVER - 330)  # before the heir
    ca.enrol(node)
    first = serials(ca.on(HEIRS), "control")
    late = serials(ca.on(HANDOVER), "control")
    assert late == first, "its new certificate would be refused there"
    assert serials(ca.on(HANDOVER), "fleet")["retired"], "the others are trusted through the root"
    assert issuer_serial(ca) == first["signs"][0]
    ca.enrol(node)
    assert serials(ca.on(HANDOVER + 1), "control")["signs"] == first["heir"]
    assert issuer_serial(ca) == first["heir"][0]


def test_an_issuer_that_has_ended_is_left_whoever_lacks_the_heir(ca: Ca) -> None:
    """They refuse the old one as well; what renews them goes over SSH."""
    node = ca.node("ams")
    ca.on(HEIRS)
    heir = serials(ca.on(HEIRS), "control")["heir"]
    ca.on(HEIRS - 5)
    ca.enrol(node)
    ca.on(OVER)
    assert serials(ca.on(OVER), "control")["signs"] == heir
    assert ca.ask(GetLinkCredentials()).not_after > ca.clock.now()


def test_one_that_was_off_for_six_years_is_there_again(ca: Ca) -> None:
    ca.on(0)
    ca.system.stop(10)
    ca.clock.days = 6 * YEAR
    ca.restart()
    view = ca.on(6 * YEAR)
    assert all(authority.not_after > ca.clock.now() for authority in view.authorities)
    assert ca.ask(GetLinkCredentials()).not_after > ca.clock.now()
    assert issuer_serial(ca) == serials(view, "control")["signs"][0]


def test_heirs_end_with_the_root_and_then_there_are_no_more(ca: Ca) -> None:
    for day in range(0, int(10 * YEAR), 120):
        view = ca.on(day)
    root = next(a for a in view.authorities if a.role == "root")
    assert max(a.not_after for a in view.authorities) == root.not_after
    assert ca.actions().count("ca.heir") == 3 * 2, "none that would not live longer"
