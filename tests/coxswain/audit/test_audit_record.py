"""The bytes of a record, and the tree over them."""

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.audit import CompactRange, canonical_bytes, hash_children, hash_leaf, leaf_hash, root_of, row_hash
from coxswain.messages.audit import AuditEntry

ROW1 = AuditEntry(
    "aud_aaaaaaaaaaaaaaaa", 1767225600123456, "admin", "session", "auth.login", "user", "usr_admin", "127.0.0.1"
)
ROW2 = AuditEntry(
    "aud_bbbbbbbbbbbbbbbb",
    1767225601000001,
    "root",
    "cli",
    "token.create",
    "token",
    "tok_cccccccccccccccc",
    "",
    '{"name":"ci","scope":"monitor"}',
)
HASH1 = "5e3f2d0a65b76c1b5c16208820d5c9c245b96ffa633ff8efbd67fe423f6edba9"
HASH2 = "54d3b57f4d4e2d348a5b967c132fb524df64795e6d588b6d20ff2f9be0416af4"


def test_both_vectors_of_the_specification():
    """management-plane.md 9.2."""
    assert row_hash("", ROW1) == HASH1
    assert row_hash(HASH1, ROW2) == HASH2


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(AuditEntry)])
def test_every_field_is_in_the_hash(field):
    value = getattr(ROW1, field)
    changed = dataclasses.replace(ROW1, **{field: value + 1 if isinstance(value, int) else value + "x"})
    assert row_hash("", changed) != HASH1


texts = st.text(max_size=5)


@given(st.lists(texts, min_size=9, max_size=9), st.lists(texts, min_size=9, max_size=9))
def test_no_two_records_have_the_same_bytes(left, right):
    one, other = (AuditEntry(t[0], 1, *t[1:], "") for t in (left, right))
    assert (canonical_bytes(one) == canonical_bytes(other)) == (left == right)


def test_a_leaf_is_over_version_number_and_row_hash():
    data = b"\x01" + (7).to_bytes(8, "big") + bytes.fromhex(HASH1)
    assert leaf_hash(7, HASH1) == hashlib.sha256(b"\x00" + data).digest()
    assert leaf_hash(8, HASH1) != leaf_hash(7, HASH1) != leaf_hash(7, HASH2)


# The inputs and roots that implementations of Certificate Transparency test with (RFC 6962 2.1).
INPUTS = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


@pytest.mark.parametrize("size", range(9))
def test_the_known_roots(size):
    assert root_of(hash_leaf(bytes.fromhex(text)) for text in INPUTS[:size]).hex() == ROOTS[size]


def recursive_root(leaves):
    """RFC 6962 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return hash_children(recursive_root(leaves[:k]), recursive_root(leaves[k:]))


@given(st.lists(st.binary(max_size=3).map(hash_leaf), max_size=70), st.integers(0, 70))
def test_a_range_is_the_tree_wherever_it_is_cut(leaves, cut):
    head, tail = leaves[:cut], leaves[cut:]
    grown = CompactRange()
    for leaf in head:
        grown.append(leaf)
    grown = CompactRange(grown.size, grown.subtrees)  # as from a note of it
    for leaf in tail:
        grown.append(leaf)
    assert grown.size == len(leaves)
    assert grown.root() == recursive_root(leaves)


def test_a_range_of_the_wrong_width_is_refused():
    with pytest.raises(ValueError, match="2 subtrees, not 1"):
        CompactRange(3, [b"x" * 32])
    with pytest.raises(ValueError, match="subtrees"):
        CompactRange(-1, [])
