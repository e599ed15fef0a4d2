"""A thousand random changes of a log, on each backend: all of them are noticed, and the first bad record is named."""

import dataclasses
import json
import random
import string

import pytest

from coxswain import audit
from coxswain.audit.purge import purge
from tests.audit_log import NOON, SignedLog, entries_of, rewrite

TEXTS = (
    "id", "actor", "actor_kind", "action", "target_type", "target_id", "source_ip", "detail", "result", "error",
    "prev_hash", "row_hash",
)  # fmt: skip
PURGED, SIZE = 100, 331
SIGNED = (80, 200, 300)
"""Sizes of the checkpoints; the last 31 records are in none, and are covered by the chain alone."""

ROUNDS = 1_000


class Undone(Exception):
    """Takes a change back."""


@pytest.fixture
def log(store, tmp_path):
    made = SignedLog(store, tmp_path)
    for size in SIGNED:
        with store.read() as tx:
            have = audit.head(tx).size
        made.write(size - have)
        made.checkpoint()
    with store.write() as tx:
        assert purge(tx, made.signer, before=NOON + PURGED + 0.5, now=NOON + 300, most=1_000) == PURGED
        audit.append_outbox(tx)
    made.write(SIZE - 301)
    return made


def test_a_thousand_random_mutations_are_all_found(log):
    rng = random.Random(20_261_126)
    kinds = {}
    for round_ in range(ROUNDS):
        mutate = rng.choice(MUTATIONS)
        with pytest.raises(Undone), log.store.write() as tx:
            mutate_and_look(log, tx, mutate, rng, round_)
        kinds[mutate.__name__] = kinds.get(mutate.__name__, 0) + 1
    assert min(kinds.values()) > 30, "each kind had its turn"
    report = log.report()
    assert report.ok and report.good == SIZE, "each was taken back"


def mutate_and_look(log, tx, mutate, rng, round_):
    expected = mutate(tx, rng)
    report = log.verify(tx)
    where = (round_, mutate.__name__, expected, report)
    assert not report.ok, where
    assert report.first_bad in expected, where
    raise Undone


# -- each returns the records that may be named as the first bad one


def change_a_text(tx, rng):
    seq = rng.randrange(PURGED + 1, SIZE + 1)
    column = rng.choice(TEXTS)
    before = tx.execute(f"SELECT {column} FROM audit_log WHERE seq = ?", (seq,))[0][0]
    after = "".join(rng.choices(string.hexdigits, k=rng.choice((0, 1, 64))))
    tx.execute(f"UPDATE audit_log SET {column} = ? WHERE seq = ?", (after if after != before else before + "0", seq))
    # An action that says what was purged, changed, leaves the purged ones without a witness.
    return {seq, 1}


def flip_one_bit_of_a_text(tx, rng):
    seq = rng.randrange(PURGED + 1, SIZE + 1)
    column = rng.choice(("id", "actor", "detail", "target_id", "row_hash"))
    before = tx.execute(f"SELECT {column} FROM audit_log WHERE seq = ?", (seq,))[0][0]
    position = rng.randrange(len(before))
    after = before[:position] + chr(ord(before[position]) ^ 1) + before[position + 1 :]
    tx.execute(f"UPDATE audit_log SET {column} = ? WHERE seq = ?", (after, seq))
    return {seq, 1}


def change_the_time(tx, rng):
    seq = rng.randrange(PURGED + 1, SIZE + 1)
    tx.execute("UPDATE audit_log SET at = at + ? WHERE seq = ?", (rng.choice((-1, 1, 10**9)), seq))
    return {seq}


def change_a_leaf(tx, rng):
    seq = rng.randrange(1, SIZE + 1)
    table = "audit_purged" if seq <= PURGED else "audit_log"
    tx.execute(f"UPDATE {table} SET leaf_hash = ? WHERE seq = ?", (rng.randbytes(32), seq))
    return {seq}


def delete_one(tx, rng):
    seq = rng.randrange(1, SIZE)
    table = "audit_purged" if seq <= PURGED else "audit_log"
    tx.execute(f"DELETE FROM {table} WHERE seq = ?", (seq,))
    return {seq, 1} if seq == 301 else {seq}


def swap_two(tx, rng):
    seq, other = sorted(rng.sample(range(PURGED + 1, SIZE + 1), 2))
    for old, new in ((seq, 10**6), (other, seq), (10**6, other)):
        tx.execute("UPDATE audit_log SET seq = ? WHERE seq = ?", (new, old))
    return {seq}


def put_one_in_front(tx, rng):
    tx.execute("UPDATE audit_log SET seq = ? WHERE seq = ?", (rng.choice((0, -5)), SIZE))
    return {1}


def double_one(tx, rng):
    """A purged one gets a payload again."""
    seq = rng.randrange(1, PURGED + 1)
    tx.execute("UPDATE audit_log SET seq = ? WHERE seq = ?", (seq, SIZE))
    return {seq}


def edit_with_its_own_hashes(tx, rng):
    """The next record still follows the old one."""
    seq = rng.randrange(PURGED + 1, SIZE)
    tx.execute("UPDATE audit_log SET detail = ? WHERE seq = ?", (json.dumps({"n": rng.randrange(10**9)}), seq))
    ((_, entry),) = audit.list_entries(tx, limit=1, before=seq + 1)
    previous = tx.execute("SELECT prev_hash FROM audit_log WHERE seq = ?", (seq,))[0][0]
    digest = audit.row_hash(previous, entry)
    values = (digest, audit.leaf_hash(seq, digest), seq)
    tx.execute("UPDATE audit_log SET row_hash = ?, leaf_hash = ? WHERE seq = ?", values)
    return {seq + 1, 1} if seq == 301 else {seq + 1}


def edit_and_compute_everything_anew(tx, rng):
    """Of the records that still have their payload, as the chain allows; the checkpoints tell between which two."""
    seq = rng.randrange(PURGED + 1, 301)
    rows = tx.execute("SELECT seq, prev_hash FROM audit_log WHERE seq >= ? ORDER BY seq", (seq,))
    entries = dict(audit.list_entries(tx, limit=10**6))
    entries[seq] = dataclasses.replace(entries[seq], actor="nobody")
    previous = rows[0][1]
    for number, _ in rows:
        entry = entries[number]
        digest = audit.row_hash(previous, entry)
        tx.execute(
            "UPDATE audit_log SET actor = ?, prev_hash = ?, row_hash = ?, leaf_hash = ? WHERE seq = ?",
            (entry.actor, previous, digest, audit.leaf_hash(number, digest), number),
        )
        previous = digest
    tree = audit.load_tree(tx)
    tx.execute("DELETE FROM audit_node")
    assert audit.load_tree(tx).size == tree.size
    return {81, 201} & ({201} if seq > 200 else {81})


def cut_the_tail(tx, rng):
    left = rng.randrange(PURGED + 1, 300)
    tx.execute("DELETE FROM audit_log WHERE seq > ?", (left,))
    tx.execute("DELETE FROM audit_node")
    tx.execute("DELETE FROM audit_checkpoint WHERE size > ?", (left,))
    return {1, left + 1}  # the record of retention was cut as well


def begin_anew(tx, rng):
    rewrite(tx, entries_of(tx)[: rng.randrange(0, 200)])
    tx.execute("DELETE FROM audit_checkpoint")
    return {1, *range(1, 201)}


def change_an_inner_node(tx, rng):
    tx.execute("UPDATE audit_node SET hash = ?", (rng.randbytes(32),))
    return {1}


def change_a_checkpoint(tx, rng):
    number, note = rng.choice(tx.execute("SELECT number, note FROM audit_checkpoint"))
    lines = note.split("\n")
    lines[1] = str(int(lines[1]) + rng.choice((-1, 1)))
    tx.execute("UPDATE audit_checkpoint SET note = ? WHERE number = ?", ("\n".join(lines), number))
    return {None}


MUTATIONS = (
    change_a_text, flip_one_bit_of_a_text, change_the_time, change_a_leaf, delete_one, swap_two, put_one_in_front,
    double_one, edit_with_its_own_hashes, edit_and_compute_everything_anew, cut_the_tail, begin_anew, change_an_inner_node,
    change_a_checkpoint,
)  # fmt: skip
