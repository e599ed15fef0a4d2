"""Rows of control paths, on each backend."""

import dataclasses

import pytest

from coxswain.control_path.model import ControlPath
from coxswain.errors import NotFound, StaleVersion
from coxswain.store import UniqueViolation
from coxswain.store import control_paths as rows

NOW = 1_767_225_600.25
WAY = ControlPath("cpath_1", "way", ("rly_a", "rly_b"), created_at=NOW, updated_at=NOW)
STRAIGHT = ControlPath("cpath_2", "straight", created_at=NOW + 1, updated_at=NOW + 1)


@pytest.fixture
def kept(store):
    with store.write() as tx:
        for path in (WAY, STRAIGHT):
            rows.insert_control_path(tx, path)
    return store


def listed(store):
    with store.read() as tx:
        return rows.list_control_paths(tx)


def test_what_is_kept_comes_back(kept):
    assert listed(kept) == [WAY, STRAIGHT]
    with kept.write() as tx:
        rows.delete_control_path(tx, WAY.id)
    assert listed(kept) == [STRAIGHT]


def test_a_change_counts_up_and_a_stale_one_changes_nothing(kept):
    with kept.write() as tx:
        changed = rows.update_control_path(tx, dataclasses.replace(WAY, name="way 2", hops=("rly_c",)), NOW + 5)
    assert (changed.version, changed.updated_at) == (2, NOW + 5)
    assert listed(kept)[0] == changed
    with pytest.raises(StaleVersion), kept.write() as tx:
        rows.update_control_path(tx, WAY, NOW + 6)
    with pytest.raises(NotFound), kept.write() as tx:
        rows.update_control_path(tx, dataclasses.replace(WAY, id="cpath_9"), NOW + 6)
    assert listed(kept)[0] == changed


def test_one_is_active_at_most_and_a_name_is_there_once(kept):
    with kept.write() as tx:
        rows.update_control_path(tx, dataclasses.replace(WAY, is_active=True), NOW)
    with pytest.raises(UniqueViolation, match="is_active"), kept.write() as tx:
        rows.update_control_path(tx, dataclasses.replace(STRAIGHT, is_active=True), NOW)
    with pytest.raises(UniqueViolation, match="name: another control path has it already"), kept.write() as tx:
        rows.insert_control_path(tx, dataclasses.replace(WAY, id="cpath_3"))
    assert [path.is_active for path in listed(kept)] == [True, False]
