"""The checker that needs nothing but the export: what it accepts, and that nothing makes it fail otherwise."""

import json
import random

import pytest

from coxswain.audit.export import consistency, footer_lines, header_line, inclusion, record_lines
from coxswain.audit.keys import new_signer
from coxswain.audit.log import append_outbox
from coxswain.audit.offline import check
from coxswain.audit.purge import purge
from coxswain.audit.restart import restart_restored
from coxswain.audit.tree import head
from coxswain.errors import InvalidInput, NotFound
from coxswain.messages.audit import Caller
from tests.audit_log import NOON, SignedLog


@pytest.fixture
def log(store, tmp_path):
    made = SignedLog(store, tmp_path)
    made.write(300)
    made.kept = made.checkpoint()
    made.write(40)
    return made


def export_of(log):
    fresh = log.checkpoint()
    with log.store.read() as tx:
        lines = [header_line(log.signer.verifier), *record_lines(tx, 1, head(tx).size), *footer_lines(tx, fresh)]
    return "\n".join(lines) + "\n"


def proofs_of(log):
    fresh = log.checkpoint()
    with log.store.read() as tx:
        yield inclusion(tx, 17, fresh, log.signer.verifier)
        yield inclusion(tx, 340, fresh, log.signer.verifier)
        yield consistency(tx, 300, fresh, log.signer.verifier)


def test_an_export_holds_with_and_without_what_retention_took(log):
    key = log.signer.verifier
    found = check(export_of(log), key, [log.kept.note])
    assert (found.records, found.purged, found.head.size) == (340, 0, 340)
    with log.store.write() as tx:
        assert purge(tx, log.signer, before=NOON + 120.5, now=NOON, most=1_000) == 120
        append_outbox(tx)
    text = export_of(log)
    assert '"type":"purged"' in text and "192.0.2.1" not in text.split("\n")[50]
    found = check(text, key, [log.kept.note])
    assert (found.records, found.purged, found.head.size) == (221, 120, 341)
    with pytest.raises(InvalidInput, match="no signed record of retention"):
        check("\n".join(line for line in text.split("\n") if "audit.purge" not in line or "checkpoint" in line), key)


def test_an_export_of_a_restored_log_holds_and_knows_the_old_name(log):
    old = log.signer.verifier
    restart_restored(log.store, log.paths, Caller("root", "cli"), {}, now=NOON)
    log = SignedLog(log.store, log.paths.key.parent)
    assert check(export_of(log), log.signer.verifier).head.size == 341
    with pytest.raises(InvalidInput):
        check(export_of(log), old)


def test_a_proof_holds_for_its_key_alone(log):
    for proof in proofs_of(log):
        assert check(json.dumps(proof), log.signer.verifier).head.size == 340
        with pytest.raises(InvalidInput, match="not ours"):
            check(json.dumps(proof), new_signer().verifier)
    with log.store.read() as tx, pytest.raises(NotFound, match="has no record 341"):
        inclusion(tx, 341, log.sign(tx), log.signer.verifier)
    with log.store.read() as tx, pytest.raises(NotFound, match="never had 341"):
        consistency(tx, 341, log.sign(tx), log.signer.verifier)


def test_a_checkpoint_of_another_history_shows(log):
    other = SignedLog(log.store, log.paths.key.parent)
    with log.store.read() as tx:
        forged = log.sign(tx)
    other.write(3)
    for proof in proofs_of(log):
        if "old" in proof:
            assert check(json.dumps(proof), log.signer.verifier, [log.kept.note])
            with pytest.raises(InvalidInput, match="ask for a proof from 340"):
                check(json.dumps(proof), log.signer.verifier, [forged.note])


VALUES = (None, True, -1, 2**70, 1.5, "", "x", "\ud800", "0" * 64, [], {}, [1], {"a": 1}, "AAAA", 0, "\u0000")


def test_nothing_makes_it_fail_in_another_way(log):
    """Every field of every line replaced by something else: it says no, in words, or the field was none that counts."""
    key, rng = log.signer.verifier, random.Random(9)
    lines = export_of(log).rstrip("\n").split("\n")
    refused = 0
    for _ in range(300):
        number = rng.randrange(len(lines))
        item = json.loads(lines[number])
        name = rng.choice(list(item))
        item[name] = rng.choice([value for value in VALUES if value != item[name]])
        changed = [*lines[:number], json.dumps(item), *lines[number + 1 :]]
        try:
            check("\n".join(changed), key)
        except InvalidInput:
            refused += 1
        else:
            assert number == 0 or json.loads(lines[number])["type"] == "checkpoint", (lines[number], item)
    assert refused > 250
    for proof in proofs_of(log):
        for name in proof:
            for value in VALUES:
                with_other = proof | {name: value}
                try:
                    check(json.dumps(with_other), key)
                except InvalidInput:
                    continue
                assert name in ("version", "public_key", "leaf", "old_checkpoint") or value == proof[name], (name, value)
    for text in ("", "\n", "[]", "{}", "null", "x", '{"type":1}', '{"type":"coxswain-audit-export"}', "\x00", "[" * 10_000):
        with pytest.raises(InvalidInput):
            check(text, key)
