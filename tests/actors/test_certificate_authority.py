"""The CA actor under its supervisor: it comes back the same, renews what is due, and neither signs nor starts amiss."""

import random

import pytest
from cryptography import x509

from actors import certificate_authority
from actors.certificate_authority import CertificateAuthority, _CheckRenewal
from actors.supervision import ChildSpec, System
from actors.supervision.signals import Harm
from coxswain.clock import SystemClock
from coxswain.errors import InvalidInput, KeyUnavailable, NotFound, StoreUnavailable
from coxswain.keyring import KeySource, load_secret, make_key_file, open_keyring
from coxswain.messages.audit import Caller
from coxswain.messages.ca import (
    DescribeCa,
    GetLinkCredentials,
    GetRelayCredentials,
    IssueNodeCertificate,
    RevokeNodeCertificates,
)
from coxswain.model import Node
from coxswain.store import fleet as fleet_rows
from tests.coxswain.pki.test_csr import request
from tests.support import eventually

CALLER = Caller("ci", "token")
DAY_S = 86_400.0


class Shifted(SystemClock):
    """The machine's clock, with the calendar moved."""

    def __init__(self):
        self.days = 0.0

    def now(self):
        return super().now() + self.days * DAY_S


@pytest.fixture
def clock():
    return Shifted()


@pytest.fixture
def keyring(store, tmp_path):
    return open_with_key(store, tmp_path / "ca.key")


def open_with_key(store, path):
    make_key_file(path)
    with store.write() as tx:
        return open_keyring(tx, load_secret(KeySource.FILE, key_file=path, environ={}))


def run(store, keyring, clock):
    spec = ChildSpec("certificate_authority", CertificateAuthority, {"store": store, "keyring": keyring})
    system = System(children=(spec,), clock=clock, rng=random.Random(1), allow_chaos=True)
    system.start()
    assert system.wait_up(10)
    return system


@pytest.fixture
def system(store, keyring, clock):
    running = run(store, keyring, clock)
    yield running
    running.stop(10)


def ask(system, message):
    return system.ask("certificate_authority", message, deadline=10)


@pytest.fixture
def node_id(store):
    with store.write() as tx:
        fleet_rows.insert_node(tx, Node(id="nod_a", name="ams-1", control_addr="203.0.113.7:8443"))
    return "nod_a"


def actions(store):
    with store.read() as tx:
        return [row[0] for row in tx.execute("SELECT action FROM audit_outbox ORDER BY outbox_id")]


def test_after_a_crash_it_is_the_same_authority_with_the_same_certificate(system):
    before, credentials = ask(system, DescribeCa()), ask(system, GetLinkCredentials())
    assert system.harm("certificate_authority", Harm.RAISE)
    eventually(lambda: system.tree().children[0].incarnation == 2)
    assert ask(system, DescribeCa()) == before
    assert ask(system, GetLinkCredentials()) == credentials


def test_its_certificate_is_renewed_at_two_thirds_of_its_life_and_the_links_hear_of_it(system, clock, store):
    before = ask(system, GetLinkCredentials())
    clock.days = 200
    system.tell("certificate_authority", _CheckRenewal())
    assert ask(system, GetLinkCredentials()) == before
    clock.days = 290  # two thirds of 365 days, and a tenth of the rest
    system.tell("certificate_authority", _CheckRenewal())
    after = ask(system, GetLinkCredentials())
    assert after.not_after - before.not_after == pytest.approx(290 * 86_400, abs=60)
    assert (after.key_pem != before.key_pem, after.root_pem == before.root_pem) == (True, True)
    assert actions(store).count("ca.renew") == 2


def test_one_that_was_off_for_two_years_starts_with_a_fresh_certificate(store, keyring, clock):
    run(store, keyring, clock).stop(10)
    clock.days = 730
    running = run(store, keyring, clock)
    try:
        assert ask(running, GetLinkCredentials()).not_after > clock.now()
    finally:
        running.stop(10)


def test_a_node_gets_a_leaf_for_its_address_and_nothing_else_that_it_asked_for(system, store, node_id):
    csr = request(names=("bank.example",), common_name="coxswain-controller")
    issued = ask(system, IssueNodeCertificate(CALLER, node_id, csr)).value
    leaf = x509.load_pem_x509_certificate(issued.node_crt)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["203.0.113.7"]
    assert "bank.example" not in names.get_values_for_type(x509.DNSName)
    assert issued.server_name in names.get_values_for_type(x509.DNSName)
    assert issued.ignored == ("subject CN=coxswain-controller", "SAN bank.example")
    assert actions(store)[-1] == "node.enroll"


def test_what_it_refuses_leaves_neither_a_certificate_nor_a_record(system, store, node_id):
    before = ask(system, DescribeCa()), actions(store)
    with pytest.raises(NotFound, match="nod_b"):
        ask(system, IssueNodeCertificate(CALLER, "nod_b", request()))
    with pytest.raises(InvalidInput, match="no certificate request"):
        ask(system, IssueNodeCertificate(CALLER, node_id, b"hello"))
    with pytest.raises(NotFound, match="no valid certificate"):
        ask(system, RevokeNodeCertificates(CALLER, node_id, None, ""))
    assert (ask(system, DescribeCa()), actions(store)) == before


def test_one_serial_can_be_revoked_and_only_once(system, store, node_id):
    first, second = (ask(system, IssueNodeCertificate(CALLER, node_id, request())).value for _ in range(2))
    assert ask(system, RevokeNodeCertificates(CALLER, node_id, first.serial, "lost")).value == (first.serial,)
    with pytest.raises(NotFound, match="serial"):
        ask(system, RevokeNodeCertificates(CALLER, node_id, first.serial, "lost"))
    with store.read() as tx:
        assert fleet_rows.get_node(tx, node_id, now=0.0).server_names == (second.server_name,)


def test_no_key_is_in_the_database_in_the_clear(system, store):
    key = ask(system, GetLinkCredentials()).key_pem
    with store.read() as tx:
        sealed = [bytes(row[0]) for row in tx.execute("SELECT key_sealed FROM authorities")]
        sealed += [bytes(row[0]) for row in tx.execute("SELECT key_sealed FROM controller_certs")]
    assert len(sealed) >= 4
    assert all(b"PRIVATE" not in blob and key[40:80] not in blob for blob in sealed)


class Away:
    """A store that cannot be reached, and counts who tried."""

    def __init__(self):
        self.tries = 0

    def read(self):
        self.tries += 1
        raise StoreUnavailable("nobody answers")

    def write(self, _durability=None):
        return self.read()


def test_a_store_that_is_away_at_the_check_is_waited_for(system, clock, monkeypatch):
    before, away = ask(system, GetLinkCredentials()), Away()
    monkeypatch.setattr(certificate_authority, "_RETRY_S", 0.02)
    clock.days = 300
    with monkeypatch.context() as outage:
        outage.setattr(system.directory.find("certificate_authority"), "_store", away)
        system.tell("certificate_authority", _CheckRenewal())
        eventually(lambda: away.tries >= 3)
        assert ask(system, GetLinkCredentials()) == before, "what it has it serves meanwhile"
    eventually(lambda: ask(system, GetLinkCredentials()) != before)
    assert system.tree().children[0].incarnation == 1


def test_with_another_key_it_does_not_start(store, keyring, clock, tmp_path):
    run(store, keyring, clock).stop(10)
    with pytest.raises(KeyUnavailable, match="another key"):
        open_with_key(store, tmp_path / "other.key")


def test_the_leaf_of_the_controller_as_a_relay_is_kept_and_follows_the_name_under_which_devices_come(system, clock):
    leaves = {leaf.holder for leaf in ask(system, DescribeCa()).leaves}
    assert "relay" not in leaves, "nobody asked for it yet"
    first = ask(system, GetRelayCredentials("relay.example"))
    assert ask(system, GetRelayCredentials("relay.example")) == ask(system, GetRelayCredentials("")) == first
    leaf = x509.load_pem_x509_certificates(first.chain_pem)[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "relay.example"]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {x509.oid.ExtendedKeyUsageOID.SERVER_AUTH, x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH} == set(usage)
    assert {a.value for a in leaf.subject} == {"PharosVPN Relay"}
    assert system.harm("certificate_authority", Harm.RAISE)
    eventually(lambda: system.tree().children[0].incarnation == 2)
    assert ask(system, GetRelayCredentials("")) == first
    other = ask(system, GetRelayCredentials("198.51.100.7"))
    assert other.chain_pem != first.chain_pem
    written = ask(system, GetRelayCredentials("2001:DB8:0::1"))
    assert ask(system, GetRelayCredentials("2001:DB8:0::1")) == written, "asked for each minute, issued once"
    other = ask(system, GetRelayCredentials("198.51.100.7"))
    clock.days = 200
    system.tell("certificate_authority", _CheckRenewal())
    assert ask(system, GetRelayCredentials("")) == other
    clock.days = 290
    system.tell("certificate_authority", _CheckRenewal())
    renewed = ask(system, GetRelayCredentials("198.51.100.7"))
    assert renewed.not_after - other.not_after == pytest.approx(290 * 86_400, abs=60)
    assert "PRIVATE" not in repr(renewed)
