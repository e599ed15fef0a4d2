"""Every attack of the list in the project's technique notes, carried out on each backend, and what notices it.

The attacker can write the database. Where the attack needs more (the key, the files), the test says so.
"""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from coxswain import audit
from coxswain.audit.checkpoint import silence
from coxswain.audit.keys import new_signer
from coxswain.audit.note import Signer
from coxswain.audit.purge import purge
from coxswain.audit.restart import restart_restored
from coxswain.audit.settings import AuditPaths
from coxswain.errors import CoxswainError
from coxswain.messages.audit import Caller
from coxswain.store import open_store
from tests.audit_log import CALLER, NOON, SignedLog, entries_of, put_back, rewrite, sign_anew, take_copy


@pytest.fixture
def log(store, tmp_path):
    """600 records, so that there are inner nodes; checkpoints at 200, 500 and 600. An operator has kept the second."""
    made = SignedLog(store, tmp_path)
    made.write(200)
    made.checkpoint()
    made.write(300)
    made.kept = made.checkpoint()
    made.write(100)
    made.checkpoint()
    report = made.report(made.kept)
    assert report.ok and (report.good, report.size, report.checked) == (600, 600, 4)
    assert report.root == audit_root(made) and report.newest.size == 600
    assert made.at_start() == []
    return made


def audit_root(log):
    with log.store.read() as tx:
        return audit.load_tree(tx).root()


def change(log, sql, *values):
    with log.store.write() as tx:
        tx.execute(sql, values)


# -- edit or delete one row in place


@pytest.mark.parametrize("seq", [1, 256, 257, 333, 600])
def test_one_row_is_edited(log, seq):
    change(log, "UPDATE audit_log SET actor = 'nobody' WHERE seq = ?", seq)
    report = log.report()
    assert (report.good, report.broken.seq, report.first_bad) == (seq - 1, seq, seq)
    assert f"record {seq} was changed" in report.broken.why


@pytest.mark.parametrize("seq", [1, 256, 333])
def test_one_row_is_deleted(log, seq):
    change(log, "DELETE FROM audit_log WHERE seq = ?", seq)
    report = log.report()
    assert (report.good, report.first_bad) == (seq - 1, seq) and "missing" in report.broken.why


# -- edit, recompute all later hashes


@pytest.mark.parametrize("seq", [1, 150, 350, 501])
def test_a_row_is_edited_and_everything_after_it_computed_anew(log, seq):
    with log.store.write() as tx:
        entries = entries_of(tx)
        entries[seq - 1] = dataclasses.replace(entries[seq - 1], actor="nobody")
        rewrite(tx, entries)
        tx.execute("DELETE FROM audit_checkpoint")
    report = log.report()
    assert report.broken is None, "as a chain it is whole"
    # The checkpoints in the file tell between which of them it happened.
    first = {1: 1, 150: 1, 350: 201, 501: 501}[seq]
    assert not report.ok and report.first_bad == first
    assert "the log was rewritten" in report.findings[0].why
    assert "rewritten" in log.at_start()[0]


def test_hashes_computed_anew_but_not_the_inner_nodes(log):
    """A careless attacker: the stored nodes tell where it was, more narrowly than checkpoints do."""
    with log.store.write() as tx:
        nodes = tx.execute("SELECT level, idx, hash FROM audit_node")
        entries = entries_of(tx)
        entries[299] = dataclasses.replace(entries[299], detail="{}")
        rewrite(tx, entries)
        tx.executemany("UPDATE audit_node SET hash = ? WHERE level = ? AND idx = ?", [(h, lv, i) for lv, i, h in nodes])
    report = log.report()
    assert "inner node" in report.findings[0].why and report.findings[0].seq == 257


# -- cut the newest rows


@pytest.mark.parametrize("left", [0, 499, 500, 599])
def test_the_newest_rows_are_cut(log, left):
    """With every trace of them in the database."""
    with log.store.write() as tx:
        rewrite(tx, entries_of(tx)[:left])
        tx.execute("DELETE FROM audit_checkpoint WHERE size > ?", (left,))
    report = log.report()
    assert report.broken is None and report.good == left, "as a chain it is whole"
    assert report.first_bad == left + 1 and "cut off" in report.findings[0].why
    assert "cut off" in log.at_start()[0]


def test_they_are_cut_and_others_grow_in_their_place(log):
    with log.store.write() as tx:
        rewrite(tx, entries_of(tx)[:550])
        tx.execute("DELETE FROM audit_checkpoint WHERE size > 550")
    log.write(80)
    report = log.report()
    assert report.first_bad == 501 and "rewritten" in report.findings[0].why
    assert "rewritten" in log.at_start()[0]


def test_the_checkpoint_file_goes_with_them_and_the_one_kept_elsewhere_tells(log):
    """An attacker who can also write the files beside the state, and has no key."""
    with log.store.write() as tx:
        rewrite(tx, entries_of(tx)[:300])
        tx.execute("DELETE FROM audit_checkpoint WHERE size > 300")
    log.file.path.unlink()
    assert log.report().ok, "nothing on this machine remembers"
    report = log.report(log.kept)
    assert report.first_bad == 301 and "500" in report.findings[0].why


# -- replace the database by an older copy


def test_an_older_copy_is_put_back(log):
    with log.store.read() as tx:
        older = take_copy(tx)
    log.write(50)
    log.checkpoint()
    with log.store.write() as tx:
        put_back(tx, older)
    report = log.report()
    assert report.broken is None and report.good == 600
    assert report.first_bad == 601 and "older copy" in report.findings[0].why
    assert "older copy" in log.at_start()[0]


# -- rewrite the whole chain with the stolen key


def test_the_whole_chain_is_rewritten_with_the_stolen_key(log):
    """Everything on the machine is the attacker's: database, file, key."""
    with log.store.write() as tx:
        entries = [dataclasses.replace(e, source_ip="203.0.113.66") for e in entries_of(tx)]
        rewrite(tx, entries)
        sign_anew(tx, log.file, log.signer, (200, 500, 600))
    assert log.report().ok and log.at_start() == [], "nothing on this machine can tell"
    report = log.report(log.kept)
    assert not report.ok and report.first_bad == 1 and "kept elsewhere" in report.findings[0].why


# -- show one history to A, another to B


def test_two_histories_are_shown(log, fresh_where, tmp_path):
    """With the stolen key. Each is whole in itself; two checkpoints beside each other prove the fork."""
    with log.store.read() as tx:
        copy = take_copy(tx)
    other_dir = tmp_path / "other"
    other_dir.mkdir()
    for name in ("audit.key", "audit.pub", "audit-checkpoints"):
        shutil.copy(tmp_path / name, other_dir / name)
    store = open_store(fresh_where())
    with store.write() as tx:  # its outbox numbers begin anew
        put_back(tx, copy | {"audit_log": [(*row[:-1], -row[-1]) for row in copy["audit_log"]]})
    other = SignedLog(store, other_dir)
    log.write(10)
    other.write(20)  # other ids, so another history
    for_a, for_b = log.checkpoint(), other.checkpoint()
    assert log.report(for_a).ok and other.report(for_b).ok and log.report(log.kept).ok and other.report(log.kept).ok
    report = other.report(for_a, log.kept)
    assert not report.ok and report.first_bad == 501, "they agree up to the last checkpoint that both were shown"
    report = log.report(for_b)
    assert not report.ok and "620" in report.findings[0].why
    store.close()


# -- stop logging from now on


def test_the_log_is_stopped(log):
    made = log.checkpoint(at=NOON)
    assert silence(made.at, 300.0, NOON + 300) == ""
    assert silence(made.at, 300.0, NOON + 629) == "", "a late one is no alarm"
    assert "the log was stopped" in silence(made.at, 300.0, NOON + 3_600)


def test_an_old_checkpoint_cannot_be_passed_off_as_a_fresh_one(log):
    """The time is signed too."""
    old = log.checkpoint(at=NOON)
    fresh = log.checkpoint(at=NOON + 5_000)
    assert (old.root, old.size) == (fresh.root, fresh.size) and old.note != fresh.note
    assert log.report(old).newest.at == NOON + 5_000


# -- beyond the table: what the existing implementation let through (management-plane.md 13.3), and what is ours


def test_blanked_hashes_are_never_filled_in_again(log, tmp_path):
    """There, every start of any command did."""
    change(log, "UPDATE audit_log SET detail = '{}', row_hash = '' WHERE seq = 20")
    change(log, "UPDATE audit_log SET row_hash = '', prev_hash = '' WHERE seq > 20")
    log.write(1)
    again = SignedLog(log.store, tmp_path)
    assert again.report().first_bad == 20


def test_a_payload_is_taken_as_if_by_retention(log):
    """The hashes stay as they are; only that nobody signed for it tells."""
    with log.store.write() as tx:
        for table in ("INSERT INTO audit_purged (seq, row_hash, leaf_hash) SELECT seq, row_hash, leaf_hash", "DELETE"):
            tx.execute(f"{table} FROM audit_log WHERE seq <= 30")
    report = log.report()
    assert report.first_bad == 1 and "no signed record of retention" in report.findings[0].why


def test_a_payload_in_the_middle_is_taken(log):
    with log.store.write() as tx:
        for table in ("INSERT INTO audit_purged (seq, row_hash, leaf_hash) SELECT seq, row_hash, leaf_hash", "DELETE"):
            tx.execute(f"{table} FROM audit_log WHERE seq = 30")
    assert log.report().first_bad == 1


def test_a_record_of_retention_is_forged(log):
    """Through the outbox, which the database has; the key it has not."""
    with log.store.write() as tx:
        purge(tx, new_signer(), before=NOON + 31, now=NOON, most=1_000)
        audit.append_outbox(tx)
    report = log.report()
    assert not report.ok and "not signed for it" in report.findings[0].why


def test_more_is_taken_than_retention_did(log):
    with log.store.write() as tx:
        assert purge(tx, log.signer, before=NOON + 31, now=NOON, most=1_000) == 30
        audit.append_outbox(tx)
    report = log.report(log.kept)
    assert report.ok and report.purged == 30
    with log.store.write() as tx:
        for table in ("INSERT INTO audit_purged (seq, row_hash, leaf_hash) SELECT seq, row_hash, leaf_hash", "DELETE"):
            tx.execute(f"{table} FROM audit_log WHERE seq = 31")
    report = log.report()
    assert report.first_bad == 31 and "no signed record" in report.findings[0].why


@pytest.mark.parametrize("column", ["row_hash", "leaf_hash"])
def test_what_retention_left_is_changed(log, column):
    with log.store.write() as tx:
        purge(tx, log.signer, before=NOON + 301, now=NOON, most=1_000)
        audit.append_outbox(tx)
        value = "00" * 32 if column == "row_hash" else bytes(32)
        tx.execute(f"UPDATE audit_purged SET {column} = ? WHERE seq = 77", (value,))
    assert log.report().first_bad == 77


def test_both_hashes_of_what_retention_left_are_changed_together(log):
    """The record of retention has the root, and so have the checkpoints."""
    with log.store.write() as tx:
        purge(tx, log.signer, before=NOON + 301, now=NOON, most=1_000)
        audit.append_outbox(tx)
        forged = "ab" * 32
        values = (forged, audit.leaf_hash(299, forged))
        tx.execute("UPDATE audit_purged SET row_hash = ?, leaf_hash = ? WHERE seq = 299", values)
    whys = " ".join(finding.why for finding in log.report().findings)
    assert "not those that retention left" in whys and "rewritten" in whys


def test_retention_leaves_a_log_that_verifies(log):
    """Down to the last record but its own; and the outbox and later appends go on as ever."""
    with log.store.write() as tx:
        assert purge(tx, log.signer, before=NOON + 10_000, now=NOON + 10_000, most=250) == 250
        audit.append_outbox(tx)
        assert purge(tx, log.signer, before=NOON + 10_000, now=NOON + 10_000, most=1_000) == 350
        audit.append_outbox(tx)
        assert purge(tx, log.signer, before=NOON + 10_000, now=NOON + 10_000, most=1_000) == 0
    log.write(300)
    log.checkpoint()
    report = log.report(log.kept)
    assert report.ok and (report.good, report.purged) == (902, 600)
    with log.store.read() as tx:
        told = json.loads(audit.list_entries(tx, limit=1, before=603)[0][1].detail)
    assert (told["first"], told["last"]) == (251, 600)
    assert log.at_start() == []


def test_the_payload_comes_back(log):
    with log.store.read() as tx:
        rows = take_copy(tx)["audit_log"][:1]
    with log.store.write() as tx:
        purge(tx, log.signer, before=NOON + 301, now=NOON, most=1_000)
        audit.append_outbox(tx)
        put_back(tx, take_copy(tx) | {"audit_log": rows + take_copy(tx)["audit_log"]})
    assert log.report().first_bad == 1


def test_a_restart_is_forged(log):
    """Somebody who cut the log writes a record that says it was restored."""
    with log.store.write() as tx:
        rewrite(tx, entries_of(tx)[:300])
        detail = {"statement": log.sign(tx).note}
        audit.record(tx, CALLER, "backup.restore", ("audit", "x"), detail, now=NOON)
        audit.append_outbox(tx)
    report = log.report()
    assert "not signed for it" in report.findings[0].why
    assert any("cut off" in f.why or "rewritten" in f.why for f in report.findings)


def test_a_restore_is_a_record_and_tells_what_was_given_up(log):
    with log.store.read() as tx:
        backup = take_copy(tx)
    log.write(50)
    later = log.checkpoint()
    with log.store.write() as tx:
        put_back(tx, backup)
    assert log.at_start() != []
    before = log.signer.verifier
    seq = restart_restored(log.store, log.paths, Caller("root", "cli"), {"made_at": "2026-01-01T00:00:00Z"}, now=NOON)
    assert seq == 601
    log = _reopened(log)
    assert log.signer.verifier != before
    assert log.at_start() == []
    log.write(30)
    log.checkpoint()
    report = log.report()
    assert report.ok, report.findings
    assert log.report(log.kept).ok, "what was there before the backup still is"
    report = log.report(later)
    assert report.first_bad == 601 and "restarted by record 601" in report.findings[0].why
    with log.store.read() as tx:
        ((_, entry),) = audit.list_entries(tx, limit=1, before=602)
    told = json.loads(entry.detail)
    assert entry.action == "backup.restore" and (told["previous"], told["kept"]) == (before.name, 600)
    assert told["made_at"] == "2026-01-01T00:00:00Z"


def _reopened(log):
    again = SignedLog(log.store, log.paths.key.parent)
    again.kept = log.kept
    return again


def test_after_a_restart_the_old_key_signs_nothing_any_more(log):
    old = log.signer
    restart_restored(log.store, log.paths, Caller("root", "cli"), {}, now=NOON)
    log = _reopened(log)
    log.write(10)
    log.checkpoint()
    with log.store.read() as tx:
        log.signer, new = old, log.signer
        forged = log.sign(tx)
        log.signer = new
    report = log.report(forged)
    assert not report.ok and "before the log was restarted" in report.findings[0].why


def test_the_key_is_replaced(log, tmp_path):
    """Whoever deletes the key makes the next start make a new one; the old checkpoints are not of it."""
    (tmp_path / "audit.key").unlink()
    log = _reopened(log)
    assert "the key was replaced" in log.at_start()[0]
    report = log.report(log.kept)
    assert not report.ok and "not one of this log" in report.findings[0].why


@pytest.mark.parametrize("text", ["", "garbage", "PRIVATE+KEY+a+00000000+AAAA", "PRIVATE+KEY+"])
def test_a_key_file_that_holds_something_else_is_refused(tmp_path, text):
    paths = AuditPaths.in_state(tmp_path)
    paths.key.write_text(text)
    paths.key.chmod(0o600)
    with pytest.raises(CoxswainError, match="private key"):
        SignedLog(None, tmp_path)
    paths.key.chmod(0o644)
    with pytest.raises(CoxswainError, match="used by others"):
        SignedLog(None, tmp_path)


def test_the_key_is_private_and_nowhere_in_the_database(log, tmp_path):
    secret = (tmp_path / "audit.key").read_text().strip()
    assert (tmp_path / "audit.key").stat().st_mode & 0o077 == 0
    assert Signer.parse(secret).verifier == log.signer.verifier
    assert (tmp_path / "audit.pub").read_text().strip() == str(log.signer.verifier)
    tail = secret.split("+", 4)[4]  # of PRIVATE+KEY+name+id+key; the key is base64 and may hold a "+"
    with log.store.read() as tx:
        everything = repr(take_copy(tx))
    assert tail not in everything
