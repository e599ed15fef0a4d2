"""Certificates are renewed by themselves at two thirds of their life, over SSH, and the link comes back under the new
one.
"""

from __future__ import annotations

from cryptography import x509

from actors.renewals import CheckRenewals
from coxswain.messages.ca import DescribeCa
from tests.machines import relay_file
from tests.support import eventually


def serial(machine):
    return x509.load_pem_x509_certificates(machine.path("/etc/node/node.crt").read_bytes())[0].serial_number


def age(rig, days):
    """Makes every node's certificate look as if it had been issued that long ago, and end as much sooner."""
    with rig.controller.store.write() as tx:
        shift = days * 86_400_000_000
        tx.execute("UPDATE node_certs SET not_before = not_before - ?, not_after = not_after - ?", (shift, shift))


def test_what_is_due_is_renewed_once(rig):
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent())
    before = serial(machine)
    system = rig.controller.system
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 0
    age(rig, 250)
    assert any(leaf.renewal_due for leaf in system.ask("certificate_authority", DescribeCa(), deadline=30).leaves)
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 1
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 0, "it is under way"
    eventually(lambda: rig.last("node.renew")["state"] == "done", timeout=40)
    assert serial(machine) != before
    rig.controller.until(node["name"], link_state="live")
    assert rig.last("node.renew")["actor"] == "renewals"
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 0


def test_so_is_what_is_due_of_a_relay(rig):
    machine = rig.machine()
    (machine.path("/etc/relay") / "address").write_text(machine.address)
    server = rig.add_server(machine)
    body = {"role": "relay", "binary_path": str(relay_file(rig.home / "relay"))}
    relay = rig.client.post(f"/api/servers/{server['id']}/deploy", body)
    shown = machine.path("/etc/relay/relay.crt")
    before = shown.read_bytes()
    system = rig.controller.system
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 0
    with rig.controller.store.write() as tx:
        shift = 250 * 86_400_000_000
        tx.execute("UPDATE relay_certs SET not_before = not_before - ?, not_after = not_after - ?", (shift, shift))
    assert [system.ask("renewals", CheckRenewals(), deadline=10) for _ in range(2)] == [1, 0]
    eventually(lambda: rig.last("relay.renew")["state"] == "done", timeout=60)
    assert shown.read_bytes() != before
    (record,) = rig.client.get("/api/audit?action=relay.enroll&limit=1")
    now = x509.load_pem_x509_certificates(shown.read_bytes())[0]
    known = {"serial": str(now.serial_number), "not_after": int(now.not_valid_after_utc.timestamp())}
    assert record["detail"].items() >= known.items(), "a restore of an older backup knows it by this"
    eventually(lambda: rig.client.get(f"/api/relays/{relay['id']}")["tunnel"] == "connected", timeout=30)
    assert rig.client.get(f"/api/relays/{relay['id']}")["agent_version"] == relay["agent_version"] != ""
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 0


def test_a_relay_is_of_the_version_that_its_file_was_built_of(rig):
    """relay-contract.md 7.4, step 10: it may call itself something else, and then an upgrade to itself would be offered."""
    machine = rig.machine()
    (machine.path("/etc/relay") / "address").write_text(machine.address)
    server = rig.add_server(machine)
    file = relay_file(rig.home / "built", version="0.4.0")
    built = "v0.4.1-0.20261127113524-eb0f08a81e48"
    file.write_text(file.read_text() + f'\nBUILT = """\nmod\tferry.example/relay\t{built}\t\n"""\n')
    relay = rig.client.post(f"/api/servers/{server['id']}/deploy", {"role": "relay", "binary_path": str(file)})
    assert relay["agent_version"] == built


def test_a_host_that_does_not_answer_is_tried_again_later(rig):
    machine = rig.machine()
    rig.node_on(machine, rig.agent())
    age(rig, 250)
    machine.stop()
    system = rig.controller.system
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 1
    eventually(lambda: rig.last("node.renew")["state"] == "failed", timeout=40)
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 0, "but not at once"
