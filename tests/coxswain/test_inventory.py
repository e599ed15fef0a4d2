import pytest

from coxswain.errors import InvalidInput
from coxswain.inventory import (
    check_decoy_site,
    check_dialable,
    check_endpoint_ips,
    check_endpoint_ports,
    check_name,
    check_policy,
    check_region,
    host_of,
    parse_control_addr,
)
from coxswain.model import NetworkPolicy


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("203.0.113.7", "203.0.113.7:8444"),
        ("203.0.113.7:9000", "203.0.113.7:9000"),
        ("node-1.example.net", "node-1.example.net:8444"),
        ("node-1.example.net:1", "node-1.example.net:1"),
        ("2001:db8::1", "[2001:db8::1]:8444"),
        ("[2001:db8::1]:65535", "[2001:db8::1]:65535"),
        ("[2001:db8::1]", "[2001:db8::1]:8444"),
        (" localhost ", "localhost:8444"),
    ],
)
def test_control_addresses_are_normalised(text: str, normal: str) -> None:
    assert parse_control_addr(text) == normal
    assert parse_control_addr(normal) == normal


@pytest.mark.parametrize(
    "text",
    ["", ":8444", "host:", "host:0", "host:65536", "host:8444x", "a b", "[::1", "[::1]8444", "1.2.3", "1.2.3.4.5", "-a.b",
     "host\n", "a..b", "host:٣", "x" * 254, "[1.2.3.4]:1", "user@host"],
)  # fmt: skip
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    if text == "host\n":
        assert parse_control_addr(text) == "host:8444"
        return
    with pytest.raises(InvalidInput, match="control_addr"):
        parse_control_addr(text)


def test_host_of_is_the_name_to_pin() -> None:
    assert host_of("[2001:db8::1]:8444") == "2001:db8::1"
    assert host_of("a.example:1") == "a.example"


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\n", "a\x00b", "\u2028", "a\u202eb", "a/b", ".."])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        check_name(name)


def test_good_names_and_regions() -> None:
    for name in ("fra-1.b_2", "Frankfurt 1", "-a", "a,b", "é", "x" * 100):
        assert check_name(name) == check_name(f" {name} ") == name
    assert check_name("e\u0301") == "\u00e9"
    assert check_region("eu-central (Frankfurt)") == "eu-central (Frankfurt)"
    with pytest.raises(InvalidInput, match="region"):
        check_region("a\nb")


def test_endpoint_pool_is_cleaned() -> None:
    assert check_endpoint_ips((" 203.0.113.1", "", "203.0.113.1", "2001:DB8::1")) == ("203.0.113.1", "2001:db8::1")
    with pytest.raises(InvalidInput, match="endpoint_ips"):
        check_endpoint_ips(("host.example",))


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "::", "224.0.0.1", "239.255.255.250", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0", "::ffff:224.0.0.1"],
)
def test_an_address_that_no_client_can_dial(address: str) -> None:
    with pytest.raises(InvalidInput, match=f"endpoint_ips: {address} is .* no client can dial") as refused:
        check_dialable("endpoint_ips", ["192.0.2.1", address])
    assert refused.value.remedy
    check_dialable("endpoint_ips", [address], known=[address])


def test_what_is_near_can_be_dialled() -> None:
    check_dialable("public_ip", ["127.0.0.1", "10.0.0.255", "192.168.1.0", "169.254.1.1", "::1", "fd00::1", "240.0.0.1"])
    check_dialable("public_ip", [])


@pytest.mark.parametrize(
    ("text", "normal"),
    [("", ""), ("  ", ""), ("20000-29999", "20000-29999"), (" 01024 - 51819 ", "1024-51819"), ("5000-5000", "5000-5000")],
)
def test_a_range_of_ports(text: str, normal: str) -> None:
    assert check_endpoint_ports(text) == normal


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("443", "20000-29999"),
        ("a-b", "20000-29999"),
        ("1-2-3", "20000-29999"),
        ("-5-9", "20000-29999"),
        ("\uff120000-29999", "20000-29999"),
        ("2000,3000", "20000-29999"),
        ("2000-3000\n", None),
        ("3000-2000", "2000-3000 would do"),
        ("443-2000", "1024-51819"),
        ("0-0", "1024-51819"),
        ("60000-70000", "1024-51819"),
        ("50000-51820", "inner links"),
        ("51820-51820", "inner links"),
        ("52000-60000", "inner links"),
        ("1024-65535", "inner links"),
    ],
)
def test_a_range_that_not_all_of_can_work(text: str, says: str | None) -> None:
    if says is None:
        assert check_endpoint_ports(text) == "2000-3000"
        return
    with pytest.raises(InvalidInput, match="endpoint_ports: ") as refused:
        check_endpoint_ports(text)
    assert says in str(refused.value)


def test_policy_needs_forwarding() -> None:
    assert check_policy(NetworkPolicy(forwarding=False, masquerade=False)).forwarding is False
    with pytest.raises(InvalidInput, match="masquerade"):
        check_policy(NetworkPolicy(forwarding=False, masquerade=True))
    with pytest.raises(InvalidInput, match="isolation"):
        check_policy(NetworkPolicy(forwarding=False, masquerade=False, isolation=True))


@pytest.mark.parametrize("text", ["", "www.example.org", "www.example.org:8443", "mirror1", "a.b2:1", "xn--bcher-kva.test"])
def test_a_decoy_is_a_host_by_its_name(text: str) -> None:
    assert check_decoy_site(f" {text} ") == text


@pytest.mark.parametrize(
    "text", ["203.0.113.9", "203.0.113.9:443", "[2001:db8::1]:443", "2001:db8::1", "a b", "a:0", "a.test.", "a.test.:443"]
)
def test_what_no_client_asks_for_is_no_decoy(text: str) -> None:
    with pytest.raises(InvalidInput, match="decoy_site: "):
        check_decoy_site(text)
