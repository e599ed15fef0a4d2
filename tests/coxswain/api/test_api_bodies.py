"""Reading requests: strict, bounded, and the field is named."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import falcon.testing
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.api.bodies import Body, instant, integer, peer_change, policy, read_body, skim_body, word
from coxswain.errors import InvalidInput
from coxswain.model import NetworkPolicy, Protocol


def body(raw: bytes | str) -> Body:
    return read_body(falcon.testing.create_req(method="POST", body=raw))


def test_keys_are_read_by_type_and_the_rest_is_refused() -> None:
    b = body('{"name": "x", "count": 3, "list": ["a"], "more": {"deep": 1}, "nothing": null}')
    assert b.need("name", str) == "x"
    assert b.need("count", int) == 3
    assert b.texts("list") == ("a",)
    assert b.get("nothing", str) is None
    assert b.get("absent", str) is None
    deep = b.object("more")
    assert deep is not None
    with pytest.raises(InvalidInput, match=r"more\.deep: unknown key; accepted are none$"):
        deep.done()
    b.done()


def test_an_unknown_key_is_named_with_those_that_are_known() -> None:
    b = body('{"nmae": "x"}')
    assert b.get("name", str) is None
    with pytest.raises(InvalidInput, match=r"^nmae: unknown key; accepted are name"):
        b.done()


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"\n", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b'\xef\xbb\xbf{"a": "\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' * 100_000, "not JSON"),
        (b"[]", "a JSON object is needed"),
        (b'"text"', "a JSON object is needed"),
        (b'{"a": 1, "a": 2}', "'a': stands twice"),
        (b'{"x": {"a": 1, "b": 1, "a": 2}}', "'a': stands twice"),
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        body(raw)


def test_a_key_that_stands_twice_is_found_in_one_pass() -> None:
    """Anybody may send a megabyte to the login. With a pass for each key this took minutes, and the suite's timeout."""
    keys = ", ".join(f'"k{number}": 1' for number in range(70_000))
    with pytest.raises(InvalidInput, match="'k69999': stands twice"):
        body(f'{{{keys}, "k69999": 2}}'.encode())


def test_an_absent_body_is_an_empty_object() -> None:
    body(b"").done()
    body(b"null").done()


@pytest.mark.parametrize("after", [b"\n", b"\r\n\r\n", b' {"b": 2}', b"}", b" and words", b"\xff\x00"])
def test_what_follows_the_value_goes_unheeded(after: bytes) -> None:
    """management-plane.md 3.1."""
    for mark in (b"", b"\xef\xbb\xbf"):
        read = body(mark + b' \r\n{"a": 1}' + after)
        assert read.need("a", int) == 1
        read.done()


def test_keys_of_routes_come_in_any_case() -> None:
    """accounts-profiles.md 4.3: as the existing controller reads them."""

    def read(raw: str) -> Body:
        return read_body(falcon.testing.create_req(method="POST", body=raw), frozenset({"name", "ssh_host"}))

    found = read('{"Name": "x", "SSH_Host": "h"}')
    assert (found.need("name", str), found.need("ssh_host", str)) == ("x", "h") and "name" in found
    with pytest.raises(InvalidInput, match="'name': stands twice"):
        read('{"Name": "x", "name": "y"}')
    with pytest.raises(InvalidInput, match="Nmae: unknown key"):
        read('{"Nmae": "x"}')


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        body(raw)
    request = falcon.testing.create_req(method="DELETE", body=raw)
    assert skim_body(request, most=1_000) is not None, "of what takes no body, none is bad"


@pytest.mark.parametrize(
    ("kind", "value", "complaint"),
    [
        (str, 1, "x: 1 is not text"),
        (str, ["secret"], "x: a value of type list is not text"),
        (int, True, "x: True is not a whole number"),
        (int, 1.0, "x: 1.0 is not a whole number"),
        (int, 2**53, "x: is out of range"),
        (int, -(10**30), "x: is out of range"),
        (bool, 1, "x: 1 is not true or false"),
        (bool, "true", "x: 'true' is not true or false"),
        (list, {}, "x: a value of type dict is not a list"),
        (str, "a\0", r"x: 'a\\x00' holds control characters"),
        (str, "a\nb", r"x: 'a\\nb' holds control characters"),
        (str, "\x1b[31m", "holds control characters"),
        (str, "\x9b31m", "holds control characters"),
        (str, "\ud800", r"x: '\\ud800' holds control characters"),
        (str, "y" * 501, "501 characters are too many; at most 500"),
    ],
)
def test_a_wrong_value_is_named(kind: type[Any], value: Any, complaint: str) -> None:
    b = body(json.dumps({"x": value}))
    with pytest.raises(InvalidInput, match=complaint) as caught:
        b.get("x", kind)
    str(caught.value).encode()  # what cannot be encoded cannot be sent


def test_names_may_be_in_any_script() -> None:
    assert body(json.dumps({"x": "Zoë 渡し守 🛶"})).need("x", str) == "Zoë 渡し守 🛶"


def test_a_text_may_have_lines_but_no_half_characters() -> None:
    assert body('{"csr": "a\\nb"}').text("csr") == "a\nb"
    for raw in ('{"csr": "\\u0000"}', '{"csr": "\\ud800"}', '{"csr": 1}', "{}"):
        with pytest.raises(InvalidInput, match="csr: "):
            body(raw).text("csr")


def test_items_of_lists_are_named_by_their_place() -> None:
    with pytest.raises(InvalidInput, match=r"endpoint_ips\[1\]: "):
        body('{"endpoint_ips": ["a", "\\u0000"]}').texts("endpoint_ips")
    with pytest.raises(InvalidInput, match="a list of texts is needed"):
        body('{"endpoint_ips": ["a", 1]}').texts("endpoint_ips")
    peer = {"id": "p", "node_id": "n", "device_id": "d"}
    with pytest.raises(InvalidInput, match=r"add\[1\]\.public_key: is missing"):
        peer_change(body(json.dumps({"add": [peer | {"public_key": "k"}, peer]})))
    with pytest.raises(InvalidInput, match=r"users\[0\]: a JSON object is needed"):
        peer_change(body('{"users": [1]}'))


def test_a_change_of_peers_is_read_whole() -> None:
    users, devices, add, remove = peer_change(
        body(
            json.dumps(
                {
                    "users": [{"id": "u", "name": "U", "email": "u@x"}],
                    "devices": [{"id": "d", "user_id": "u"}],
                    "add": [{"id": "p", "node_id": "n", "device_id": "d", "public_key": "k", "preshared_key": "s3cret"}],
                    "remove": [{"node_id": "n", "protocol": "xray-reality", "public_key": "k"}],
                }
            )
        )
    )
    assert (users[0].id, users[0].email, devices[0].user_id) == ("u", "u@x", "u")
    assert add[0].protocol is Protocol.AMNEZIAWG and add[0].preshared_key == "s3cret" and "s3cret" not in repr(add)
    assert remove == (("n", Protocol.XRAY_REALITY, "k"),)
    xray = {"id": "p", "node_id": "n", "device_id": "d", "public_key": "k", "protocol": "xray-reality"}
    [added] = peer_change(body(json.dumps({"add": [xray]})))[2]
    assert added.protocol is Protocol.XRAY_REALITY
    with pytest.raises(InvalidInput, match="'pigeon' is not a protocol; amneziawg or xray-reality"):
        peer_change(body('{"remove": [{"node_id": "n", "protocol": "pigeon", "public_key": "k"}]}'))


def test_a_policy_left_out_in_part_takes_the_defaults() -> None:
    assert policy(None) is None
    assert policy(body('{"isolation": true}')) == NetworkPolicy(isolation=True)
    with pytest.raises(InvalidInput, match="unknown key"):
        policy(body('{"nat": true}'))


def test_query_values_are_checked() -> None:
    assert integer({"limit": "5"}, "limit", 1) == 5
    assert integer({}, "limit", 1) == 1
    for bad in ("", "-1", "1.5", "1_0", "٣", "0" * 20 + "9", "x\ud800", ["1", "2"]):
        with pytest.raises(InvalidInput, match="is not a whole number from 0 to 100") as caught:
            integer({"limit": bad}, "limit", 1, high=100)
        str(caught.value).encode()
    assert word({"node": "a"}, "node") == "a"
    assert word({}, "node") is None
    with pytest.raises(InvalidInput, match="stands 2 times"):
        word({"node": ["a", "b"]}, "node")
    with pytest.raises(InvalidInput, match="control characters"):
        word({"node": "\0"}, "node")


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_that_are_in_no_year_of_utc(text: str) -> None:
    """They can be read, and not be shown again: an answer with one would fail."""
    with pytest.raises(InvalidInput, match="not an RFC 3339 time"):
        instant({"until": text}, "until")
    assert instant({"until": text[:19] + "Z"}, "until") is not None
