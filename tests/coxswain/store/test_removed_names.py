"""Names of what was removed: kept with the removal, found by id and by name, forgotten with the last that mentions them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from coxswain.errors import InvalidInput, NotFound
from coxswain.messages.names import FindNamed, ListRemoved, Named
from coxswain.model import Device, Node, Protocol, User
from coxswain.sessions import Boundary, Changes, OpenSession
from coxswain.store import Store, access, accounts, fleet, names
from coxswain.store import session_records as records
from coxswain.store import session_totals as totals
from coxswain.store import sessions as session_rows

T = 1_800_000_000.0
DEVICES = {"dev_a1": "usr_a", "dev_a2": "usr_a", "dev_b1": "usr_b"}


@pytest.fixture
def world(store: Store) -> Store:
    """Two users called Ada; the first has two devices, the second one, and all three are called ``phone``."""
    with store.write() as tx:
        for user in ("usr_a", "usr_b"):
            accounts.insert_user(tx, User(user, "Ada", f"{user[4:]}@example.org", created_at=1.0))
        for device, user in DEVICES.items():
            accounts.insert_device(tx, Device(device, user, "phone", created_at=1.0))
        fleet.insert_node(tx, Node("nod_a", "ams", control_addr="192.0.2.1:8444"))
    return store


def write(store: Store, do: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    with store.write() as tx:
        return do(tx, *arguments, **more)


def read(store: Store, do: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    with store.read() as tx:
        return do(tx, *arguments, **more)


def test_a_user_goes_and_its_name_stays_with_those_of_its_devices(world: Store) -> None:
    ids = ["usr_a", "dev_a1", "dev_a2", "dev_b1", "nod_a", "nod_gone", "cev_1"]
    before = read(world, names.names_of, ids)
    assert before["dev_a1"] == Named("dev_a1", "device", "phone", "usr_a")
    assert sorted(before) == ["dev_a1", "dev_a2", "dev_b1", "nod_a", "usr_a"]
    write(world, accounts.delete_user, "usr_a", by="root", now=T)
    write(world, fleet.delete_node, "nod_a", by="ann@example.org", now=T + 0.5)
    assert read(world, names.names_of, ids) == {
        "usr_a": Named("usr_a", "user", "Ada", "", T, "root"),
        "dev_a1": Named("dev_a1", "device", "phone", "usr_a", T, "root"),
        "dev_a2": Named("dev_a2", "device", "phone", "usr_a", T, "root"),
        "dev_b1": Named("dev_b1", "device", "phone", "usr_b"),
        "nod_a": Named("nod_a", "node", "ams", "", T + 0.5, "ann@example.org"),
    }


def test_nothing_about_who_was_removed_is_kept_but_the_name(world: Store) -> None:
    write(world, accounts.delete_user, "usr_a", by="root", now=T)
    rows = read(world, lambda tx: tx.execute("SELECT * FROM removed_names ORDER BY id"))
    assert rows[-1] == ("usr_a", "user", "Ada", "", round(T * 1e6), "root")
    assert "a@example.org" not in str(rows)


def test_a_removal_that_is_rolled_back_leaves_no_name(world: Store) -> None:
    def fail() -> None:
        with world.write() as tx:
            accounts.delete_device(tx, "dev_a1", by="root", now=T)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read(world, names.names_of, ["dev_a1"])["dev_a1"].removed_at == 0.0
    assert read(world, names.list_removed, ListRemoved()) == []


def test_what_a_backup_brought_back_is_there_and_may_be_removed_again(world: Store) -> None:
    write(world, accounts.delete_device, "dev_a1", by="root", now=T)
    write(world, accounts.insert_device, Device("dev_a1", "usr_a", "tablet", created_at=1.0))
    assert read(world, names.names_of, ["dev_a1"])["dev_a1"] == Named("dev_a1", "device", "tablet", "usr_a")
    write(world, accounts.delete_device, "dev_a1", by="eve", now=T + 1)
    assert read(world, names.names_of, ["dev_a1"])["dev_a1"] == Named("dev_a1", "device", "tablet", "usr_a", T + 1, "eve")


def test_admins_leave_their_name_too_and_the_nameless_none(store: Store) -> None:
    for key, name in (("usr_x", "Eve"), ("usr_y", "")):
        write(store, access.insert_account, access.Account(key, name, f"{key}@example.org", "", "active", 1, "", 1.0))
        write(store, access.delete_account, key, by="root", now=T)
    assert [each.name for each in read(store, names.list_removed, ListRemoved())] == ["Eve"]


def find(store: Store, kind: str, key: str, **more: Any) -> str:
    found: str = read(store, names.find_named, FindNamed(kind, key, **more))  # type: ignore[arg-type]
    return found


def test_a_filter_may_be_an_id_or_a_name_or_an_address_of_who_is_there(world: Store) -> None:
    assert find(world, "node", "ams") == find(world, "node", "nod_a") == "nod_a"
    assert find(world, "user", "B@example.org", by_contact=True) == "usr_b"
    assert find(world, "device", "phone", user_id="usr_b") == "dev_b1"
    assert find(world, "device", "dev_a1", user_id="usr_b") == "dev_a1", "an id means what it is of"
    with pytest.raises(NotFound, match=r"id or name 'b@example\.org'"):
        find(world, "user", "b@example.org")


def test_a_text_like_an_id_is_a_name_if_one_has_it_and_else_an_id(world: Store) -> None:
    assert find(world, "device", "dev_laptop") == "dev_laptop", "history may know what nobody else does"
    with pytest.raises(NotFound):
        find(world, "user", "nod_a")
    write(world, accounts.insert_device, Device("dev_c", "usr_b", "dev_laptop", created_at=1.0))
    assert find(world, "device", "dev_laptop") == "dev_c"


def test_what_several_are_called_is_refused_with_the_way_out(world: Store) -> None:
    with pytest.raises(InvalidInput) as caught:
        find(world, "device", "phone")
    assert str(caught.value) == ("device: 3 devices have the name 'phone': dev_a1 of Ada, dev_a2 of Ada, dev_b1 of Ada")
    assert caught.value.remedy == "Give the id of the one that is meant, or say whose device it is as well."
    with pytest.raises(InvalidInput, match="2 devices have the name 'phone'") as caught:
        find(world, "device", "phone", user_id="usr_a")
    assert caught.value.remedy == "Give the id of the one that is meant."
    for number in range(8):
        write(world, accounts.insert_device, Device(f"dev_c{number}", "usr_b", "phone", created_at=1.0))
    with pytest.raises(InvalidInput, match=r"more than 5 devices have the name 'phone': (dev_\w+ of Ada(, )?){5}$"):
        find(world, "device", "phone")


def test_what_nothing_is_called_is_refused_with_the_way_out(world: Store) -> None:
    with pytest.raises(NotFound) as caught:
        find(world, "device", "fridge", user_id="usr_a")
    assert str(caught.value) == (
        "device: there is no device of user usr_a with the id or name 'fridge', and none that was removed"
    )
    assert caught.value.remedy == "See: cox devices list; for what was removed: cox removed"


def test_a_name_of_what_was_removed_is_found_while_nothing_else_has_it(world: Store) -> None:
    write(world, accounts.delete_user, "usr_a", by="root", now=T)
    assert find(world, "user", "Ada") == "usr_b", "who is there goes first"
    assert find(world, "device", "phone") == "dev_b1"
    assert find(world, "user", "usr_a") == "usr_a", "by its id it is found whatever is there"
    with pytest.raises(InvalidInput, match=r"dev_a1 of Ada \(removed\), dev_a2 of Ada \(removed\)"):
        find(world, "device", "phone", user_id="usr_a")
    write(world, fleet.delete_node, "nod_a", by="root", now=T)
    assert find(world, "node", "ams") == "nod_a"
    write(world, fleet.insert_node, Node("nod_b", "ams", control_addr="192.0.2.1:8444"))
    assert find(world, "node", "ams") == "nod_b", "made anew, under its name"


def test_sql_in_a_name_is_a_name_like_any_other(world: Store) -> None:
    for text in ("' OR 1=1 --", "%", "_", "\\", "?", "%s", "$1", ""):
        for kind in ("user", "device", "node"):
            with pytest.raises(NotFound, match=re.escape(repr(text))):
                find(world, kind, text, by_contact=True)
        assert read(world, names.names_of, [text, f"dev_{text}"]) == {}


def test_the_list_is_in_the_order_of_removal_and_comes_in_pages(world: Store) -> None:
    write(world, accounts.delete_device, "dev_b1", by="root", now=T)
    write(world, accounts.delete_user, "usr_a", by="eve", now=T + 1)
    write(world, fleet.delete_node, "nod_a", by="root", now=T + 1)
    whole = [each.id for each in read(world, names.list_removed, ListRemoved())]
    assert whole == ["usr_a", "nod_a", "dev_a2", "dev_a1", "dev_b1"]
    seen: list[str] = []
    while page := read(world, names.list_removed, ListRemoved(limit=2, after=seen[-1] if seen else "")):
        seen += [each.id for each in page]
    assert seen == whole

    def some(**query: Any) -> list[str]:
        return [each.id for each in read(world, names.list_removed, ListRemoved(**query))]

    assert some(kind="node") == some(wanted="AM") == ["nod_a"]
    assert some(wanted="eve", by_actor=True) == ["usr_a", "dev_a2", "dev_a1"] and some(wanted="eve") == []
    assert some(wanted="usr_b") == ["dev_b1"] and some(wanted="%") == []
    with pytest.raises(NotFound, match="after"):
        some(after="dev_gone")


def test_a_name_is_forgotten_on_request_and_of_a_user_with_those_of_its_devices(world: Store) -> None:
    write(world, accounts.delete_device, "dev_a1", by="root", now=T)
    write(world, accounts.delete_user, "usr_a", by="root", now=T)
    write(world, accounts.delete_device, "dev_b1", by="root", now=T)
    assert write(world, names.forget, "usr_a") == 3
    assert [each.id for each in read(world, names.list_removed, ListRemoved())] == ["dev_b1"]
    assert write(world, names.forget, "usr_a") == 0
    write(world, fleet.delete_node, "nod_a", by="root", now=T)
    assert write(world, names.forget, "") == 0, "the owner of what nobody owns"


# -- retention


def session(number: int, *, node: str = "nod_x", device: str | None = None, user: str | None = None) -> OpenSession:
    made = OpenSession(number, (node, Protocol.AMNEZIAWG, "key"), T, T)
    made.device_id, made.user_id = device, user
    return made


def mention_session(store: Store, **who: str) -> None:
    write(store, session_rows.save, [session(1, **who)])


def mention_record(store: Store, **who: str) -> None:
    write(store, records.add, [Boundary(session(1, **who), T, T, None, "192.0.2.1:1", 0, 0, seq=1)])


def mention_total(store: Store, **who: str) -> None:
    changes = Changes()
    changes.opened = [session(1, **who)]
    write(store, totals.add, changes, now=T)


def mention_alert(store: Store, **who: str) -> None:
    columns = ", ".join(f"{word}_id" for word in who)
    marks = ", ".join("?" * len(who))
    write(
        store,
        lambda tx: tx.execute(
            f"INSERT INTO alerts (id, at, kind, severity, status, dedup_key, evidence, created_at, updated_at, {columns}) "
            f"VALUES ('alr_1', 1, 'k', 'info', 'open', 'd', 1, 1, 1, {marks})",
            tuple(who.values()),
        ),
    )


TABLES = ("peer_sessions", "connection_events", "session_totals", "alerts")


def test_a_name_is_kept_as_long_as_anything_mentions_it(world: Store) -> None:
    write(world, accounts.delete_user, "usr_b", by="root", now=T)
    write(world, fleet.delete_node, "nod_a", by="root", now=T)
    for mention in (mention_session, mention_record, mention_total, mention_alert):
        for who in ({"node": "nod_a"}, {"device": "dev_b1"}, {"user": "usr_b"}):
            mention(world, **who)
            kept = {"dev_b1", "nod_a"} & set(who.values())
            assert set(read(world, names.outlived, T + 1, 100)) == {"dev_b1", "nod_a"} - kept, (mention, who)
            for table in TABLES:
                write(world, lambda tx, table=table: tx.execute(f"DELETE FROM {table}"))
    assert read(world, names.outlived, T, 100) == [], "removed at that time, and not before"
    gone = read(world, names.outlived, T + 1, 100)
    assert gone == ["dev_b1", "nod_a"], "a user's stays until those of its devices are gone"
    write(world, names.purge, gone)
    for mention in (mention_session, mention_record, mention_total, mention_alert):
        mention(world, user="usr_b")
        assert read(world, names.outlived, T + 1, 100) == []
        for table in TABLES:
            write(world, lambda tx, table=table: tx.execute(f"DELETE FROM {table}"))
    assert read(world, names.outlived, T + 1, 100) == ["usr_b"]
    write(world, names.purge, ["usr_b"])
    assert read(world, names.list_removed, ListRemoved()) == []


def test_old_names_go_in_bits_and_one_that_is_held_holds_no_other(world: Store) -> None:
    for number in range(20):
        write(world, accounts.insert_device, Device(f"dev_c{number:02}", "usr_b", "phone", created_at=1.0))
        write(world, accounts.delete_device, f"dev_c{number:02}", by="root", now=T + number)
    mention_session(world, device="dev_c00")
    assert read(world, names.outlived, T + 99, 3) == ["dev_c01", "dev_c02", "dev_c03"]
