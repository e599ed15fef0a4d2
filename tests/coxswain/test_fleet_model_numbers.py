"""The numbers and strings of the fleet model, taken from the contract's text rather than from what the code has for them
(fleet-model.md 2 to 8; management-plane.md 11): if one of them is moved, existing nodes, clients or scripts notice.
"""

from __future__ import annotations

import ipaddress
import random
import re
from pathlib import Path

import pytest

from coxswain import netpolicy
from coxswain.agent.identity import new_obfuscation
from coxswain.cascade.resources import check_color
from coxswain.cascade.types import NodeLink
from coxswain.config import check
from coxswain.errors import InvalidInput
from coxswain.ids import new_id
from coxswain.inventory import check_endpoint_ips
from coxswain.model import Obfuscation
from coxswain.provisioning.offer import Offer, decoy
from coxswain.reality import reality_of
from coxswain.regions import region

PLACES = {
    "nyc1 nyc2 nyc3": (40.71, -74.01, "New York"),
    "sfo1 sfo2 sfo3": (37.77, -122.42, "San Francisco"),
    "tor1": (43.65, -79.38, "Toronto"),
    "ams2 ams3": (52.37, 4.9, "Amsterdam"),
    "lon1 eu-west-2": (51.51, -0.13, "London"),
    "fra1 eu-central-1": (50.11, 8.68, "Frankfurt"),
    "blr1": (12.97, 77.59, "Bangalore"),
    "sgp1 ap-southeast-1 asia-southeast1": (1.35, 103.82, "Singapore"),
    "syd1 ap-southeast-2": (-33.87, 151.21, "Sydney"),
    "nbg1": (49.45, 11.08, "Nuremberg"),
    "fsn1": (50.48, 12.34, "Falkenstein"),
    "hel1": (60.17, 24.94, "Helsinki"),
    "ash": (39.04, -77.49, "Ashburn"),
    "hil": (45.52, -122.99, "Hillsboro"),
    "ewr": (40.74, -74.17, "New Jersey"),
    "nrt ap-northeast-1": (35.69, 139.69, "Tokyo"),
    "cdg": (48.85, 2.35, "Paris"),
    "us-east-1": (38.95, -77.45, "N. Virginia"),
    "us-east-2": (40.0, -83.0, "Ohio"),
    "us-west-1": (37.77, -122.42, "N. California"),
    "us-west-2": (45.84, -119.7, "Oregon"),
    "eu-west-1": (53.41, -8.24, "Ireland"),
    "ap-south-1": (19.08, 72.88, "Mumbai"),
    "sa-east-1": (-23.55, -46.63, "São Paulo"),
    "us-central1": (41.26, -95.86, "Iowa"),
    "europe-west1": (50.45, 3.82, "Belgium"),
}
"""management-plane.md 11."""


@pytest.mark.parametrize("codes", PLACES)
def test_regions_are_where_the_table_says(codes: str) -> None:
    for code in codes.split():
        found = region(code)
        assert found is not None and (found.latitude, found.longitude, found.city) == PLACES[codes], code


def test_ids_are_eighty_bits_in_lower_case_base32() -> None:
    for prefix in ("srv", "nod", "rly", "pth", "nlk", "cpath", "peer", "pspec", "dev", "usr", "ses", "tok", "tkt"):
        assert re.fullmatch(rf"{prefix}_[a-z2-7]{{16}}", new_id(prefix))


def test_tunnel_addresses_begin_at_the_third() -> None:
    """The network's own and the one after it are reserved."""
    assert ipaddress.ip_address(Offer().first) == ipaddress.ip_address("10.86.0.2")
    offer = Offer(subnet=ipaddress.IPv4Network("10.99.128.0/20"))
    assert str(ipaddress.ip_address(offer.first)) == "10.99.128.2"


@pytest.mark.parametrize("index", [0, 1, 7, 99])
def test_a_links_place_on_its_node(index: int) -> None:
    """Interface, port, mark and table all count from the index."""
    link = NodeLink(id="nlk_x", entry_node_id="a", exit_node_id="b", index=index, mtu=1340, obfuscation=Obfuscation(),
                    preshared_key="")  # fmt: skip
    assert link.interface == f"awg{index + 1}"
    assert link.listen_port == 51820 + index
    assert link.mark == link.table == 7100 + index


def test_what_a_node_draws_for_its_obfuscation() -> None:
    for seed in range(400):
        drawn = new_obfuscation(random.Random(seed))
        assert 3 <= drawn.jc <= 10 and 25 <= drawn.jmin <= 75 and 700 <= drawn.jmax - drawn.jmin <= 900
        assert all(15 <= size <= 150 for size in (drawn.s1, drawn.s2, drawn.s3, drawn.s4)) and drawn.s2 != drawn.s1 + 56
        headers = (drawn.h1, drawn.h2, drawn.h3, drawn.h4)
        assert len(set(headers)) == 4 and all(5 <= header <= 2**31 - 1 for header in headers)
        assert (drawn.i1, drawn.i2, drawn.i3, drawn.i4, drawn.i5) == ("",) * 5


def test_a_policy_with_transits_is_these_commands_in_this_order() -> None:
    transit = netpolicy.Transit("10.86.0.2/32", "awg1", 7100, 7100)
    rules = netpolicy.render(netpolicy.Policy(forwarding=True, masquerade=True, isolation=True, transits=(transit,)))
    assert list(rules.pre_up) == [
        "sysctl -w net.ipv4.conf.all.forwarding=1",
        "sysctl -w net.ipv6.conf.all.forwarding=1",
        "sysctl -w net.ipv4.conf.all.rp_filter=0",
        "sysctl -w net.ipv4.conf.default.rp_filter=0",
    ]
    assert list(rules.post_up) == [
        "iptables -I FORWARD 1 -i %i -o %i -j DROP",
        "iptables -A FORWARD -i %i -j ACCEPT",
        "iptables -A FORWARD -o %i -j ACCEPT",
        "iptables -t nat -A POSTROUTING -o %e -j MASQUERADE",
        "iptables -t mangle -A PREROUTING -i %i -s 10.86.0.2/32 -j MARK --set-mark 7100",
        "ip rule add fwmark 7100 lookup 7100",
        "ip route replace default dev awg1 table 7100",
    ]
    assert list(rules.post_down) == [
        "iptables -D FORWARD -i %i -o %i -j DROP",
        "iptables -D FORWARD -i %i -j ACCEPT",
        "iptables -D FORWARD -o %i -j ACCEPT",
        "iptables -t nat -D POSTROUTING -o %e -j MASQUERADE",
        "ip route del default dev awg1 table 7100",
        "ip rule del fwmark 7100 lookup 7100",
        "iptables -t mangle -D PREROUTING -i %i -s 10.86.0.2/32 -j MARK --set-mark 7100",
    ]
    nothing = netpolicy.render(netpolicy.Policy())
    assert not (nothing.pre_up or nothing.post_up or nothing.post_down)
    for wrong in ({"masquerade": True}, {"isolation": True}, {"transits": (transit,)}):
        with pytest.raises(InvalidInput):
            netpolicy.check(netpolicy.Policy(**wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("site", "dest", "name"),
    [
        ("www.microsoft.com", "www.microsoft.com:443", "www.microsoft.com"),
        ("decoy.example:8443", "decoy.example:8443", "decoy.example"),
    ],
)
def test_a_decoy_is_dialled_at_its_port_and_asked_for_by_its_name(site: str, dest: str, name: str) -> None:
    pushed = reality_of(site)
    assert (pushed.dest, pushed.server_names, pushed.short_ids, pushed.port) == (dest, (name,), ("",), 443)
    assert decoy(site) == (dest, name)


def test_a_pool_is_cleaned_in_its_order() -> None:
    assert check_endpoint_ips((" 203.0.113.2 ", "", "203.0.113.1", "203.0.113.2")) == ("203.0.113.2", "203.0.113.1")


@pytest.mark.parametrize(
    ("given", "kept"),
    [("#4FD1C4", "#4fd1c4"), ("4fd1c4", "#4fd1c4"), ("#f80", "#ff8800"), ("F80", "#ff8800"), ("", ""), (" ", "")],
)
def test_a_colour_is_hex_or_nothing(given: str, kept: str) -> None:
    assert check_color(given) == kept


@pytest.mark.parametrize(
    ("posture", "own"),
    [
        ("personal", {"protocols.xray": False, "relay.remote": False, "retention.audit_days": 30,
                      "retention.metrics_days": 7, "fleet.idle_nodes": False, "fleet.rotation.enabled": False}),
        ("enterprise", {"protocols.xray": True, "relay.remote": True, "retention.audit_days": 365,
                        "retention.metrics_days": 90, "fleet.idle_nodes": True, "fleet.rotation.enabled": True}),
    ],
)  # fmt: skip
def test_presets(posture: str, own: dict[str, object], tmp_path: Path) -> None:
    """fleet-model.md 10; ``relay.client_listen`` apart, without which nothing listens."""
    config = check(f"posture: {posture}\n".encode(), tmp_path / "cox.yaml", {})
    shared = {
        "protocols.amneziawg": True, "log.level": "info", "ui.listen": "127.0.0.1:8443", "relay.embedded": True,
        "relay.remote_endpoints": [], "accounts.sync": True, "reality.decoy_site": "www.microsoft.com",
        "node.ssh_user": "root", "node.ssh_port": 22, "fleet.regions": [], "fleet.vpn_subnet": "10.86.0.0/16",
        "fleet.endpoint_port_min": 2000, "fleet.endpoint_port_max": 60000, "fleet.rotation.interval_seconds": 600,
        "fleet.rotation.jitter_seconds": 120, "fleet.reconcile_interval": 45, "analytics.interval_seconds": 60,
        "analytics.window_hours": 24, "siem.listen": "",
    }  # fmt: skip
    assert {name: config[name] for name in shared | own} == shared | own
