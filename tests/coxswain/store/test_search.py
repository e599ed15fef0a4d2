"""Looking for a part of a text, on both backends: whatever is typed is a text and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coxswain.model import Device, DeviceStatus, User
from coxswain.store import Store
from coxswain.store.accounts import (
    has_device_named,
    insert_device,
    insert_user,
    is_named,
    list_devices,
    list_users,
)
from coxswain.store.api import containing

NAMES = ("Ann", "anna", "B%b", "B_b", r"back\slash", "Ägir", "O'Neil", "zz top", 'quo"te')


@pytest.fixture
def named(store: Store) -> Store:
    with store.write() as tx:
        for number, name in enumerate(NAMES):
            insert_user(tx, User(f"usr_{number}", name, f"{number}@Example.org".lower(), created_at=float(number + 1)))
            insert_device(tx, Device(f"dev_{number}", f"usr_{number}", f"phone of {name}", created_at=float(number + 1)))
    return store


def found(store: Store, wanted: str, **more: str) -> list[str]:
    with store.read() as tx:
        return [user.name for user in list_users(tx, wanted=wanted, limit=100, **more)]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("ann", ["Ann", "anna"]),
        ("ANN", ["Ann", "anna"]),
        ("%", ["B%b"]),
        ("_", ["B_b"]),
        ("\\", [r"back\slash"]),
        ("Ägir", ["Ägir"]),
        ("'", ["O'Neil"]),
        ('"', ['quo"te']),
        ("z t", ["zz top"]),
        ("3@example.ORG", ["B_b"]),
        ("usr_4", [r"back\slash"]),
        ("usr_", []),
        ("' OR '1'='1", []),
        ("%' OR 1=1 --", []),
        ("nobody", []),
    ],
)
def test_a_part_of_the_name_or_e_mail_or_the_id(named: Store, wanted: str, names: list[str]) -> None:
    assert found(named, wanted) == names


def test_pages_of_what_was_found_go_on_where_they_ended(named: Store) -> None:
    assert found(named, "n", after="usr_0") == ["anna", "O'Neil"]
    with named.read() as tx:
        assert [d.name for d in list_devices(tx, wanted="PHONE OF ann", limit=1)] == ["phone of Ann"]
        assert [d.id for d in list_devices(tx, wanted="phone", user_id="usr_2", limit=9)] == ["dev_2"]


def test_who_is_known_by_a_name_alone(named: Store) -> None:
    with named.write() as tx:
        insert_user(tx, User("usr_twin", "Ann", created_at=1.0))
        insert_device(tx, Device("dev_old", "usr_twin", "old", status=DeviceStatus.REVOKED, created_at=1.0))
        insert_device(tx, Device("dev_new", "usr_twin", "new", status=DeviceStatus.SUSPENDED, created_at=1.0))
    with named.read() as tx:
        assert [is_named(tx, name) for name in ("Ann", "ann", "anna", "")] == [True, False, False, False]
        assert [has_device_named(tx, "usr_twin", name) for name in ("new", "New", "old", "phone of Ann")] == [
            True,
            False,
            False,
            False,
        ]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_whatever_is_typed_is_found_where_it_is_and_breaks_nothing(store: Store, text: str) -> None:
    condition, params = containing(("t.name", "t.other"), text)
    with store.read() as tx:
        sql = f"SELECT count(*) FROM (SELECT CAST(? AS TEXT) AS name, CAST('' AS TEXT) AS other) t WHERE {condition}"
        assert tx.execute(sql, (f"before {text} behind", *params)) == [(1,)]
        assert tx.execute(sql, ("", *params)) == [(0,)]
