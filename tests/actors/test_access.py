"""Who may do what, by the clock: what ``access`` decides, on both stores."""

from __future__ import annotations

import base64
import functools
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from actors.access import actor as access_actor
from actors.access import admins, credentials, refusals
from actors.access.state import AccessState, Rules
from coxswain.access import totp
from coxswain.access.passwords import check_hash, hash_password
from coxswain.access.secrets import digest
from coxswain.clock import ManualClock
from coxswain.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    NotFound,
    Refused,
    StaleVersion,
    StoreUnavailable,
    Throttled,
    Unauthenticated,
)
from coxswain.keyring import Keyring, KeySource
from coxswain.messages import access as m
from coxswain.messages.audit import Caller
from coxswain.store import Store
from tests.fleet import FaultyStore

CLI = Caller("root", "cli")
PASSWORD = "correct horse battery"
HASH = hash_password(PASSWORD)
fits = functools.cache(check_hash)  # it is slow on purpose


class World:
    """The state of the actor without its thread: time moves when told."""

    def __init__(self, store: Any, rules: Rules = Rules(password_hash=HASH)) -> None:
        self.clock = ManualClock()
        self.told: list[Any] = []
        self.keyring = Keyring(KeySource.FILE, b"k" * 32)
        context: Any = SimpleNamespace(
            clock=self.clock, tell=lambda name, message: self.told.append((name, message)), log=logging.getLogger("test")
        )
        self.context, self.store, self.rules = context, store, rules
        self.start()

    def start(self) -> None:
        """Again, as after a crash."""
        self.access = AccessState(self.context, self.store, self.keyring, self.rules)
        self.access.load()
        admins.ensure_built_in(self.access)

    def ask(self, message: Any) -> Any:
        self.access.settle_doubt()
        found = access_actor._HANDLERS[type(message)](self.access, message)
        return getattr(found, "value", found)

    def token(self, scope: str = "admin", lifetime_s: float | None = None) -> m.CreatedToken:
        made: m.CreatedToken = self.ask(m.CreateToken(CLI, "ci", scope, lifetime_s))
        return made

    def who(self, secret: str, *, cookie: bool = False, touch: bool = True) -> m.Authenticated:
        found: m.Authenticated = self.ask(m.WhoHolds(digest(secret), cookie, touch))
        return found

    def log_in(
        self, name: str = "admin", password: str = PASSWORD, code: str = "", address: str = "192.0.2.1"
    ) -> m.LoggedIn:
        challenge = self.ask(m.BeginLogin(name, address))
        right = fits(password, challenge.password_hash)
        done: m.LoggedIn = self.ask(m.FinishLogin(challenge, address, right, code))
        return done

    def audited(self) -> list[tuple[str, str, str]]:
        with self.store.read() as tx:
            return tx.execute("SELECT action, result, error FROM audit_outbox ORDER BY outbox_id")  # type: ignore[no-any-return]


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


# -- tokens


def test_a_token_lives_until_it_expires(world: World) -> None:
    made = world.token("monitor", 60.0)
    found = world.who(made.secret)
    assert (found.kind, found.scope, found.name, found.user_id) == ("token", "monitor", "ci", "")
    world.clock.advance(59.0)
    world.who(made.secret)
    world.clock.advance(2.0)
    with pytest.raises(Unauthenticated, match="has expired"):
        world.who(made.secret)


def test_a_revoked_token_is_refused_also_after_a_restart_and_keeps_its_first_time(world: World) -> None:
    made = world.token()
    first = world.ask(m.RevokeToken(CLI, made.token.id))
    world.clock.advance(10.0)
    again = world.ask(m.RevokeToken(CLI, made.token.id))
    assert first.revoked_at == again.revoked_at is not None
    assert [action for action, _, _ in world.audited()].count("token.revoke") == 1
    world.start()
    with pytest.raises(Unauthenticated, match="was revoked"):
        world.who(made.secret)


def test_only_hashes_of_secrets_are_stored(world: World) -> None:
    made, session = world.token(), world.log_in()
    with world.store.read() as tx:
        everything = str([tx.execute(f"SELECT * FROM {table}") for table in ("api_tokens", "login_sessions", "users")])
    for secret in (made.secret, session.secret, PASSWORD):
        assert secret not in everything


def test_the_last_use_is_written_once_a_minute(world: World) -> None:
    made = world.token()

    def stored() -> float | None:
        credentials.write_stamps(world.access)
        with world.store.read() as tx:
            at: int | None = tx.execute("SELECT last_used_at FROM api_tokens WHERE id = ?", (made.token.id,))[0][0]
        return None if at is None else at / 1e6

    world.who(made.secret, touch=False)
    assert stored() is None, "a look at a live stream is no use"
    world.who(made.secret)
    first = stored()
    assert first == pytest.approx(world.clock.now())
    for _ in range(59):
        world.clock.advance(1.0)
        world.who(made.secret)
    assert stored() == first and not world.access.token_stamps
    world.clock.advance(1.5)
    world.who(made.secret)
    assert stored() == pytest.approx(world.clock.now())


def test_tokens_come_in_pages_newest_first(world: World) -> None:
    made = []
    for _ in range(5):
        made.append(world.token().token.id)
        world.clock.advance(1.0)
    page = world.ask(m.ListTokens("", 2))
    assert ([t.id for t in page.tokens], page.more) == (made[:2:-1], True)
    page = world.ask(m.ListTokens(page.tokens[-1].id, 3))
    assert ([t.id for t in page.tokens], page.more) == (made[2::-1], False)
    with pytest.raises(NotFound, match=r"^after: "):
        world.ask(m.ListTokens("tok_nope", 3))


# -- sessions


def test_a_session_ends_when_it_idles_and_when_its_time_is_over(world: World) -> None:
    session = world.log_in()
    for _ in range(5):
        world.clock.advance(7_000.0)
        world.who(session.secret, cookie=True)
    world.clock.advance(7_201.0)
    with pytest.raises(Unauthenticated, match="expired"):
        world.who(session.secret, cookie=True)
    session = world.log_in()
    for _ in range(7):
        world.clock.advance(6_000.0)
        world.who(session.secret, cookie=True)
    world.clock.advance(1_300.0)
    with pytest.raises(Unauthenticated, match="expired"):
        world.who(session.secret, cookie=True)


def test_looking_at_a_stream_keeps_no_session_from_idling_out(world: World) -> None:
    session = world.log_in()
    for _ in range(3):
        world.clock.advance(2_000.0)
        world.who(session.secret, cookie=True, touch=False)
    world.clock.advance(2_000.0)
    with pytest.raises(Unauthenticated):
        world.who(session.secret, cookie=True, touch=False)


def test_a_session_lives_through_a_restart_and_a_token_is_no_cookie(world: World) -> None:
    session, token = world.log_in(), world.token()
    credentials.write_stamps(world.access)
    world.start()
    assert world.who(session.secret, cookie=True).user_id == "usr_admin"
    for secret, cookie in ((session.secret, False), (token.secret, True)):
        with pytest.raises(Unauthenticated):
            world.who(secret, cookie=cookie)


def test_expired_sessions_are_taken_away(world: World) -> None:
    world.log_in()
    world.clock.advance(50_000.0)
    kept = world.log_in()
    credentials.purge(world.access)
    with world.store.read() as tx:
        assert tx.execute("SELECT id FROM login_sessions") == [(kept.session_id,)]


def test_logging_out_and_revoking_end_a_session(world: World) -> None:
    one, two = world.log_in(), world.log_in()
    world.ask(m.Logout(CLI, one.session_id))
    world.ask(m.RevokeLogin(CLI, two.session_id))
    for ended in (one, two):
        with pytest.raises(Unauthenticated):
            world.who(ended.secret, cookie=True)
    with pytest.raises(NotFound):
        world.ask(m.RevokeLogin(CLI, one.session_id))


def test_a_changed_password_ends_the_other_sessions(world: World) -> None:
    world = World(world.store, Rules())
    world.ask(m.ChangePassword(CLI, "usr_admin", HASH))
    mine, other = world.log_in(), world.log_in()
    new = hash_password("another one")
    world.ask(m.ChangePassword(CLI, "usr_admin", new, HASH, mine.session_id))
    world.who(mine.secret, cookie=True)
    with pytest.raises(Unauthenticated):
        world.who(other.secret, cookie=True)
    with pytest.raises(Conflict, match="changed meanwhile"):
        world.ask(m.ChangePassword(CLI, "usr_admin", new, HASH))


def test_nobody_has_more_than_fifty_sessions(world: World) -> None:
    made = []
    for _ in range(53):
        made.append(world.log_in())
        world.clock.advance(1.0)
    assert len(world.ask(m.ListLogins(limit=100))) == 50
    with pytest.raises(Unauthenticated):
        world.who(made[2].secret, cookie=True)
    world.who(made[3].secret, cookie=True)


# -- logging in


def test_who_is_unknown_and_who_is_wrong_are_told_the_same(world: World) -> None:
    told = set()
    for name, password in (("admin", "wrong"), ("nobody", "wrong"), ("nobody", PASSWORD), ("", "")):
        with pytest.raises(Unauthenticated) as caught:
            world.log_in(name, password)
        told.add(str(caught.value))
    assert len(told) == 1
    failed = [error for action, result, error in world.audited() if action == "auth.login_failed" and result == "error"]
    assert failed == ["the password is wrong", *["there is no such account"] * 3], "the log knows"


def test_attempts_are_throttled_by_account_and_by_address(world: World) -> None:
    def fails(name: str, address: str) -> bool:
        try:
            world.log_in(name, "wrong", address=address)
        except Throttled:
            return False
        except Unauthenticated:
            return True
        raise AssertionError

    assert [fails("admin", f"192.0.2.{n}") for n in range(8)] == [True] * 5 + [False] * 3
    assert [fails(f"other-{n}", "198.51.100.1") for n in range(12)] == [True] * 10 + [False] * 2
    world.clock.advance(40.0)
    assert world.log_in(address="203.0.113.1").admin.id == "usr_admin", "an account is never kept out for long"
    assert fails("admin", "192.0.2.1")


def test_a_hundred_attempts_that_are_under_way_are_not_free(world: World) -> None:
    for _ in range(5):
        world.ask(m.BeginLogin("admin", "192.0.2.1"))
    with pytest.raises(Throttled) as caught:
        world.ask(m.BeginLogin("admin", "192.0.2.1"))
    assert caught.value.retry_after > 0


def test_a_password_that_changes_during_a_login_counts_for_nothing(world: World) -> None:
    world = World(world.store, Rules())
    world.ask(m.ChangePassword(CLI, "usr_admin", HASH))
    challenge = world.ask(m.BeginLogin("admin", "192.0.2.1"))
    world.ask(m.ChangePassword(CLI, "usr_admin", hash_password("new password")))
    with pytest.raises(Unauthenticated):
        world.ask(m.FinishLogin(challenge, "192.0.2.1", password_ok=True))


# -- second factors


def enrolled(world: World) -> tuple[bytes, tuple[str, ...]]:
    begun = world.ask(m.BeginSecondFactor(CLI, "admin"))
    secret = base64.b32decode(begun.secret)
    codes = world.ask(m.ConfirmSecondFactor(CLI, "admin", totp.code_at(secret, int(world.clock.now()) // 30)))
    world.clock.advance(60.0)
    return secret, codes


def test_a_second_factor_is_asked_for_and_each_code_is_good_once(world: World) -> None:
    secret, codes = enrolled(world)
    with pytest.raises(Unauthenticated, match="a code of the second factor is needed"):
        world.log_in()
    code = totp.code_at(secret, int(world.clock.now()) // 30)
    assert world.log_in(code=code).admin.totp
    with pytest.raises(Unauthenticated):
        world.log_in(code=code)
    world.start()
    with pytest.raises(Unauthenticated):
        world.log_in(code=code)
    assert world.log_in(code=codes[3].upper()).session_id
    with pytest.raises(Unauthenticated):
        world.log_in(code=codes[3])
    assert world.log_in(code=codes[4]).session_id


def test_a_factor_that_is_not_confirmed_does_not_count(world: World) -> None:
    world.ask(m.BeginSecondFactor(CLI, "admin"))
    assert not world.log_in().admin.totp
    with pytest.raises(InvalidInput, match=r"^code: "):
        world.ask(m.ConfirmSecondFactor(CLI, "admin", "000000x"))
    world.ask(m.RemoveSecondFactor(CLI, "admin"))
    with pytest.raises(Conflict, match="no second factor that waits"):
        world.ask(m.ConfirmSecondFactor(CLI, "admin", "000000"))


def test_secrets_of_factors_are_sealed_and_bound_to_their_account(world: World) -> None:
    secret, codes = enrolled(world)
    with world.store.read() as tx:
        stored = bytes(tx.execute("SELECT secret_sealed FROM second_factors")[0][0])
        hashes = str(tx.execute("SELECT code_hash FROM recovery_codes"))
    assert secret not in stored and not any(code in hashes for code in codes)
    assert world.keyring.open(stored, "totp:usr_admin") == secret


def test_who_knows_the_password_cannot_try_all_codes(world: World) -> None:
    enrolled(world)
    refused = 0
    for n in range(200):
        try:
            world.log_in(code=f"{n:06d}", address=f"10.0.0.{n % 250}")
        except Throttled:
            refused += 1
        except Unauthenticated:
            pass
        world.clock.advance(31.0)
    assert refused > 170


# -- accounts


def test_there_is_always_one_who_can_log_in(world: World) -> None:
    world = World(world.store, Rules())  # the built-in one has kept its password, as the store has it
    eva = world.ask(m.AddAdmin(CLI, "eva@example.net", HASH))
    with pytest.raises(Refused, match="the built-in account cannot be removed"):
        world.ask(m.RemoveAdmin(CLI, "admin"))
    with pytest.raises(Refused, match="the built-in account cannot be disabled"):
        world.ask(m.EditAdmin(CLI, "admin", world.ask(m.GetAdmin("admin")).version, status="disabled"))
    with pytest.raises(Refused, match="always called admin"):
        world.ask(m.EditAdmin(CLI, "admin", world.ask(m.GetAdmin("admin")).version, email="root@example.net"))
    with pytest.raises(AlreadyExists):
        world.ask(m.AddAdmin(CLI, "Admin", HASH))
    with pytest.raises(Conflict, match="your own account"):
        world.ask(m.RemoveAdmin(CLI, eva.id, by_user=eva.id))
    with pytest.raises(StaleVersion):
        world.ask(m.RemoveAdmin(CLI, eva.id, version=7))
    assert world.ask(m.RemoveAdmin(CLI, eva.id, version=1)).email == "eva@example.net"
    with pytest.raises(NotFound):
        world.ask(m.GetAdmin(eva.id))


def test_the_last_one_that_can_log_in_stays(store: Store) -> None:
    world = World(store, Rules())  # the built-in admin has no password
    eva = world.ask(m.AddAdmin(CLI, "eva@example.net", HASH))
    with pytest.raises(Conflict, match="is the last one that can log in, and cannot be removed"):
        world.ask(m.RemoveAdmin(CLI, eva.id))
    with pytest.raises(Conflict, match="cannot be disabled"):
        world.ask(m.EditAdmin(CLI, eva.id, 1, status="disabled"))
    world.ask(m.ChangePassword(CLI, "admin", HASH))
    world.ask(m.RemoveAdmin(CLI, eva.id))


def test_a_disabled_account_is_out_at_once(world: World) -> None:
    eva = world.ask(m.AddAdmin(CLI, "eva@example.net", HASH))
    session = world.log_in("EVA@example.net")
    world.ask(m.EditAdmin(CLI, eva.id, 1, status="disabled"))
    with pytest.raises(Unauthenticated):
        world.who(session.secret, cookie=True)
    with pytest.raises(Unauthenticated):
        world.log_in("eva@example.net")
    world.ask(m.EditAdmin(CLI, eva.id, 2, status="active"))
    world.clock.advance(60.0)
    assert world.log_in("eva@example.net")


def test_the_configurations_password_is_the_one_that_counts(store: Store) -> None:
    world = World(store, Rules(password="from the file"))
    session = world.log_in(password="from the file")
    with pytest.raises(Conflict, match="the configuration says"):
        world.ask(m.ChangePassword(CLI, "admin", HASH))
    world.start()
    world.who(session.secret, cookie=True)
    assert world.ask(m.GetAdmin("admin")).version == 1, "nothing was written again"
    other = World(store, Rules(password_hash=HASH))
    with pytest.raises(Unauthenticated):
        other.who(session.secret, cookie=True)
    assert other.log_in()
    kept = World(store, Rules())
    assert kept.log_in(), "without one in the file, what is stored counts"
    assert "from the file" not in repr(Rules(password="from the file"))


def test_names_are_unique_whatever_their_case(world: World) -> None:
    world.ask(m.AddAdmin(CLI, "eva@example.net", HASH))
    for taken in ("EVA@example.net", "Admin"):
        with pytest.raises(Conflict, match="is taken"):
            world.ask(m.AddAdmin(CLI, taken, HASH))
    for bad in ("", "two words", "a@b@c d", "x" * 300):
        with pytest.raises(InvalidInput, match=r"^email: "):
            world.ask(m.AddAdmin(CLI, bad, HASH))


# -- failures


def test_a_commit_whose_answer_is_lost_is_looked_up(store: Store) -> None:
    faulty = FaultyStore(store)
    faulty.for_actor = ""
    world = World(faulty)
    made = world.token()
    faulty.lost_commits = 1
    with pytest.raises(StoreUnavailable):
        world.ask(m.RevokeToken(CLI, made.token.id))
    with pytest.raises(Unauthenticated, match="was revoked"):
        world.who(made.secret)


def test_refusals_become_records_and_then_a_count(world: World) -> None:
    def refuse() -> None:
        world.ask(m.RecordRefusal(None, "192.0.2.9", "GET /api/nodes", "auth.refused", ("", ""), 401, "no credential"))

    for _ in range(1_000):
        refuse()
    refused = [row for row in world.audited() if row[0] == "auth.refused"]
    assert len(refused) == 10
    world.clock.advance(61.0)
    refusals.write_summaries(world.access)
    assert world.audited()[-1] == ("auth.refused_many", "error", "990 more refusals within a minute")
    refuse()
    assert world.audited()[-1][0] == "auth.refused"
