"""Names that are stored, and made by agents of other releases: a content that had one has it for ever."""

from __future__ import annotations

import pytest

from coxswain.fingerprints import is_fingerprint, of_policy, of_reality
from coxswain.netpolicy import Policy, Transit
from coxswain.ports import PortRange

TRANSITS = (Transit("10.86.0.2/32", "awg1", 7100, 7100),)


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (Policy(forwarding=True, masquerade=True), "a335b168a411480ae8827a3136dc7ce7"),
        (Policy(forwarding=True, masquerade=True, transits=TRANSITS), "e9de7fecd152cf4f667a047520a2592e"),
        (
            Policy(forwarding=True, masquerade=True, transits=TRANSITS, ports=PortRange(20000, 20999)),
            "bed3178c98b0b461d00d1646faa2e974",
        ),
    ],
)
def test_a_policy_has_the_name_that_an_earlier_release_stored(policy: Policy, name: str) -> None:
    """Another one, and with the upgrade every node would be taken for one that somebody else was at."""
    assert of_policy(policy) == name


def test_a_reality_inbound_has_the_same_name_in_whatever_order_its_clients_are() -> None:
    clients = [("8c7b5d43-6a9e-4c1f-9d3a-2f4f0c7a1b22", "xtls-rprx-vision"), ("1c7b5d43-6a9e-4c1f-9d3a-2f4f0c7a1b22", "")]
    orders = (clients, clients[::-1])
    names = {of_reality(443, "www.example.com:443", ("www.example.com",), ("",), order) for order in orders}
    assert names == {"da8f4cccf3053cd50c2429c34873587c"}


@pytest.mark.parametrize("text", ["", "A335B168A411480AE8827A3136DC7CE7", "a335", "a335b168a411480ae8827a3136dc7ce7\n"])
def test_what_is_no_name(text: str) -> None:
    assert not is_fingerprint(text)
