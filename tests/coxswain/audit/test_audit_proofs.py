"""Notes, checkpoints and proofs against the words of their specifications."""

import base64
import contextlib
import random
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coxswain.audit import CompactRange, hash_children, hash_leaf, root_of
from coxswain.audit.checkpoint import make_checkpoint, open_checkpoint, peek
from coxswain.audit.keys import new_signer
from coxswain.audit.note import BadNote, Signer, Verifier, open_note
from coxswain.audit.proofs import consistency_proof, inclusion_proof, is_consistent, range_root, root_from_inclusion
from coxswain.errors import InvalidInput

# The example of https://c2sp.org/signed-note, by the key that Go's golang.org/x/mod/sumdb/note has in its documentation.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

SIGNER = Signer("example.com/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def leaves(count):
    return [hash_leaf(b"%d" % n) for n in range(count)]


def nodes(of):
    return lambda level, index: root_of(of[index << level : (index + 1) << level])


def test_a_note_that_go_signed_is_good():
    opened = open_note(GO_NOTE, [Verifier.parse(GO_KEY)])
    assert opened.text.startswith("If you think") and opened.at is None
    with pytest.raises(BadNote, match="wrong"):
        open_note(GO_NOTE.replace("answer", "Answer"), [Verifier.parse(GO_KEY)])


def test_keys_are_written_as_go_reads_them():
    assert str(Verifier.parse(GO_KEY)) == GO_KEY
    assert Signer.parse(SIGNER.secret_text()).verifier == SIGNER.verifier
    assert str(Verifier.parse(str(SIGNER.verifier))) == str(SIGNER.verifier)
    assert "example.com/log" in repr(SIGNER) and base64.b64encode(bytes(range(32))).decode()[:8] not in repr(SIGNER)
    for text in ("", "x", "a+b", GO_KEY[:-4], GO_KEY.replace("c74f20a3", "c74f20a4"), "a b" + GO_KEY, GO_KEY + "+", "+a+b"):
        with pytest.raises(InvalidInput):
            Verifier.parse(text)
        with pytest.raises(InvalidInput):
            Signer.parse(text)


def test_a_checkpoint_has_the_three_lines_two_signatures_and_the_time():
    made = make_checkpoint(SIGNER, 7, b"\x07" * 32, 1_767_225_600.9)
    text, signatures = made.note.split("\n\n")
    assert text == "example.com/log\n7\n" + base64.b64encode(b"\x07" * 32).decode()
    assert [line.split(" ")[:2] for line in signatures.splitlines()] == [["—", "example.com/log"]] * 2
    assert open_checkpoint(made.note, [SIGNER.verifier]) == made
    assert made.at == 1_767_225_600
    assert peek(made.note).at is None, "nobody vouches for it without the key"


def test_signatures_of_others_are_ignored_and_wrong_ones_of_ours_are_not():
    made, other = make_checkpoint(SIGNER, 7, b"\x07" * 32, 5.0), new_signer()
    foreign = make_checkpoint(other, 7, b"\x07" * 32, 5.0).note.split("\n\n")[1]
    assert open_checkpoint(made.note + foreign, [SIGNER.verifier]).size == 7
    with pytest.raises(BadNote, match="a key that is not ours"):
        open_checkpoint(made.note, [other.verifier])
    same_name = Signer("example.com/log", Ed25519PrivateKey.generate())
    with pytest.raises(BadNote, match="a key that is not ours"):
        open_checkpoint(made.note, [same_name.verifier])


def test_every_changed_character_of_a_checkpoint_shows():
    made = make_checkpoint(SIGNER, 1234, bytes(range(32)), 1_767_225_600)
    for position, old in enumerate(made.note):
        for new in {"0", "A", "\n", " ", chr(ord(old) ^ 1)} - {old}:
            changed = made.note[:position] + new + made.note[position + 1 :]
            try:
                found = open_checkpoint(changed, [SIGNER.verifier])
            except BadNote:
                continue
            # Whoever breaks one signature line beyond recognition leaves the other, which is enough.
            assert (found.origin, found.size, found.root) == (made.origin, made.size, made.root), position


@given(st.text(max_size=300))
def test_no_text_makes_the_parser_fail_otherwise(text):
    for candidate in (text, f"a\n1\n{text}\n\n— a {text}\n", f"{text}\n\n— example.com/log AAAAAAAA\n"):
        with pytest.raises(BadNote):
            open_checkpoint(candidate, [SIGNER.verifier])
        with contextlib.suppress(BadNote):
            peek(candidate)


def recursive_inclusion(m, of):
    """PATH(m, D[n]) of RFC 6962 2.1.1, word for word."""
    n = len(of)
    if n == 1:
        return []
    k = 1 << (n - 1).bit_length() - 1
    if m < k:
        return [*recursive_inclusion(m, of[:k]), root_of(of[k:])]
    return [*recursive_inclusion(m - k, of[k:]), root_of(of[:k])]


def recursive_consistency(m, of, whole=True):
    """SUBPROOF(m, D[n], b) of RFC 6962 2.1.2, word for word."""
    n = len(of)
    if m == n:
        return [] if whole else [root_of(of)]
    k = 1 << (n - 1).bit_length() - 1
    if m <= k:
        return [*recursive_consistency(m, of[:k], whole), root_of(of[k:])]
    return [*recursive_consistency(m - k, of[k:], False), root_of(of[:k])]


def test_all_proofs_of_small_trees_are_those_of_the_rfc_and_hold():
    for size in range(1, 34):
        of = leaves(size)
        root, at = root_of(of), nodes(of)
        assert range_root(at, 0, size) == root
        for index in range(size):
            path = inclusion_proof(at, index, size)
            assert path == recursive_inclusion(index, of)
            assert root_from_inclusion(of[index], index, size, path) == root
        for old in range(size + 1):
            path = consistency_proof(at, old, size)
            if old:
                assert path == recursive_consistency(old, of)
            assert is_consistent(old, root_of(of[:old]), size, root, path)


def test_a_proof_for_something_else_does_not_hold():
    rng = random.Random(6)
    for _ in range(300):
        size = rng.randrange(2, 70)
        of = leaves(size)
        root, at, index, old = root_of(of), nodes(of), rng.randrange(size), rng.randrange(1, size)
        path = inclusion_proof(at, index, size)
        for other in {(index + 1) % size, rng.randrange(size)} - {index}:
            assert root_from_inclusion(of[index], other, size, path) != root
            assert root_from_inclusion(of[other], index, size, path) != root
        for bent in (path[:-1], [*path, path[0]] if path else [root], path[1:], [hash_leaf(b"x"), *path[1:]]):
            if bent != path:
                assert root_from_inclusion(of[index], index, size, bent) != root
        path = consistency_proof(at, old, size)
        forked = root_of([*of[: old - 1], hash_leaf(b"x")])
        assert not is_consistent(old, forked, size, root, path)
        assert not is_consistent(old, root_of(of[:old]), size, hash_leaf(b"x"), path)
        for bent in (path[:-1], [*path, path[0]], path[1:], [hash_leaf(b"x"), *path[1:]], []):
            assert not is_consistent(old, root_of(of[:old]), size, root, bent), (old, size, len(bent))
    assert not is_consistent(5, root, 4, root, [])
    assert not is_consistent(4, root, 4, hash_leaf(b"x"), [])
    assert root_from_inclusion(of[0], -1, 4, []) is None and root_from_inclusion(of[0], 4, 4, []) is None
    with pytest.raises(ValueError):
        inclusion_proof(at, 4, 4)
    with pytest.raises(ValueError):
        consistency_proof(at, 5, 4)


@given(st.integers(0, 2_000), st.integers(0, 2_000))
def test_what_a_range_completes_are_the_nodes_of_the_tree(count, more):
    of = leaves(count % 600 + more % 600)
    grown, found = CompactRange(), {}
    for leaf in of:
        for level, index, node in grown.append(leaf):
            found[level, index] = node
    assert all(node == nodes(of)(level, index) for (level, index), node in found.items())
    assert len(found) == sum(len(of) >> level for level in range(8, 13))
    assert grown.copy().root() == grown.root() == root_of(of)
    assert hash_children(of[0], of[1]) == nodes(of)(1, 0) if len(of) > 1 else True


def test_an_independent_implementation_agrees(tmp_path):
    """OpenSSL, on the signature; the rest is hashing."""
    made = make_checkpoint(SIGNER, 3, bytes(32), 1.0)
    text, signatures = made.note.split("\n\n")
    blob = base64.b64decode(signatures.splitlines()[0].split(" ")[2])
    der = bytes.fromhex("302a300506032b6570032100") + SIGNER.verifier.public
    (tmp_path / "key").write_bytes(der)
    (tmp_path / "text").write_bytes((text + "\n").encode())
    (tmp_path / "sig").write_bytes(blob[4:])
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", tmp_path / "key", "-rawin"]
    done = subprocess.run(
        [*command, "-in", tmp_path / "text", "-sigfile", tmp_path / "sig"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
