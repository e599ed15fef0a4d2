"""What may be written into a node's configuration."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.errors import InvalidInput
from coxswain.model import Obfuscation
from coxswain.wire import validate

KEY = base64.b64encode(bytes(range(32))).decode()
UUID = "0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c55"
GOOD_SET = Obfuscation(4, 40, 800, 20, 30, 40, 50, 5, 6, 7, 8)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (validate.key, [KEY], ["", KEY[:-1], KEY + "\n", KEY[:-2] + "9=", "A" * 44, KEY.replace("A", "-", 1)]),
        (validate.preshared_key, ["", KEY], [KEY[:-1], KEY + "\n", " " + KEY]),
        (
            validate.cidr,
            ["10.0.0.1", "10.0.0.1/24", "0.0.0.0/0", "::/0", "fd00::1/128"],
            ["", "10.0.0", "10.0.0.1/33", "::/129", "10.0.0.0/255.0.0.0", "fe80::1%eth0", "10.0.0.1/", "10.0.0.1 ", "a"],
        ),
        (
            validate.endpoint,
            ["", "192.0.2.1:1", "[2001:db8::1]:65535", "vpn.example.org:443", "a:1"],
            ["192.0.2.1", "2001:db8::1:443", "192.0.2.1:0", "192.0.2.1:65536", "10.0.0.256:1", "1.2.3:1", "-a:1", ":443",
             "a b:1", "a:1\n", "[fe80::1%e]:1", "a:٣"],
        ),
        (validate.uuid, [UUID, UUID.upper()], ["", "x", UUID.replace("-", ""), UUID + "0", UUID + "\n"]),
        (validate.flow, ["", "xtls-rprx-vision"], ["xtls-rprx-direct"]),
        (validate.short_id, ["", "ab", "0123456789abcdef"], ["a", "abc", "xy", "0123456789abcdef01"]),
        (
            validate.interface,
            ["awg1", "a", "wg-exit.1", "x" * 15],
            ["", "awg0", "awg", ".", "..", "-x", "a/b", "a b", "x" * 16, "awg1\n", "é"],
        ),
        (validate.printable, ["", "plain text"], ["a\nb", "a\x00", "\x1b[0m", "\u2028"]),
        (validate.port, [1, 65535], [0, -1, 65536]),
        (validate.uint32, [0, 2**32 - 1], [-1, 2**32]),
        (
            validate.obfuscation,
            [GOOD_SET],
            [
                Obfuscation(),
                Obfuscation(4, 40, 800, 20, 76, 40, 50, 5, 6, 7, 8),  # s2 = s1 + 56
                Obfuscation(4, 801, 800, 20, 30, 40, 50, 5, 6, 7, 8),
                Obfuscation(4, 40, 800, 20, 30, 40, 50, 5, 6, 7, 7),
                Obfuscation(4, 40, 800, 20, 30, 40, 50, 4, 6, 7, 8),
                Obfuscation(4, 40, 800, 20, 30, 40, 50, 5, 6, 7, 8, "a\nPostUp = sh"),
            ],
        ),
    ],
)  # fmt: skip
def test_checks(check, good, bad):
    for value in good:
        assert check("field", value) == value
    for value in bad:
        with pytest.raises(InvalidInput, match=r"^field"):
            check("field", value)


def test_equal_jmin_and_jmax_will_do():
    assert validate.obfuscation("o", Obfuscation(4, 800, 800, 20, 30, 40, 50, 5, 6, 7, 8)).jmin == 800


def test_zero_port_where_it_means_any():
    assert validate.port("p", 0, zero=True) == 0


def test_a_list_names_the_entry():
    assert validate.allowed_ips("ips", ["10.0.0.1", "::1"]) == ("10.0.0.1", "::1")
    with pytest.raises(InvalidInput, match=r"^ips\[1\]: 'x'"):
        validate.allowed_ips("ips", ["10.0.0.1", "x"])


def tried(check, value):
    """Returns what passed, or None, and what the error said."""
    try:
        return check("f", value), ""
    except InvalidInput as error:
        return None, str(error)


@given(st.text(max_size=60))
def test_a_preshared_key_is_never_told(value):
    passed, said = tried(validate.preshared_key, value)
    assert passed is not None or said == "f: is not a preshared key: 44 characters, base64 of 32 bytes, or empty"


@given(st.text(max_size=60))
def test_nothing_that_passes_can_leave_its_line(value):
    for check in (validate.key, validate.cidr, validate.endpoint, validate.interface, validate.uuid, validate.printable):
        passed, said = tried(check, value)
        assert "\n" not in said
        assert len((passed or "").splitlines()) <= 1
        assert "\x00" not in (passed or "")


@given(st.binary(min_size=32, max_size=32))
def test_every_key_passes(raw):
    assert validate.key("k", base64.b64encode(raw).decode())
