"""Certificates are renewed by themselves at two thirds of their life, over SSH, and the link comes back under the new
one.
"""

from __future__ import annotations

from cryptography import x509

from actors.renewals import CheckRenewals
from coxswain.messages.ca import DescribeCa
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
    assert any(leaf.renewal_due for leaf in system.ask("certificate_authority", DescribeCa(), deadline=5).leaves)
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 1
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 0, "it is under way"
    eventually(lambda: rig.last("node.renew")["state"] == "done", timeout=40)
    assert serial(machine) != before
    rig.controller.until(node["name"], link_state="live")
    assert rig.last("node.renew")["actor"] == "renewals"
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 0


def test_a_host_that_does_not_answer_is_tried_again_later(rig):
    machine = rig.machine()
    rig.node_on(machine, rig.agent())
    age(rig, 250)
    machine.stop()
    system = rig.controller.system
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 1
    eventually(lambda: rig.last("node.renew")["state"] == "failed", timeout=40)
    assert system.ask("renewals", CheckRenewals(), deadline=10) == 0, "but not at once"
