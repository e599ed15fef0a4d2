"""Argon2id as the contract has it, a cap on how many at once, and nothing to tell who exists."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from coxswain.access import passwords
from coxswain.access.passwords import HashingGate, check_hash, check_new, hash_password, is_sound_hash, new_password
from coxswain.errors import InvalidInput, Throttled

REFERENCE = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
"""Of "password" under the salt "somesalt": a test vector of the reference implementation (phc-winner-argon2, test.c)."""


def test_a_hash_has_the_contracts_parameters_and_fits_its_password_only() -> None:
    phc = hash_password("correct horse")
    assert phc.startswith("$argon2id$v=19$m=65536,t=1,p=4$")
    salt, key = phc.split("$")[4:]
    assert (len(salt), len(key)) == (22, 43), "16 and 32 bytes, unpadded"
    assert check_hash("correct horse", phc) and not check_hash("correct hors", phc) and not check_hash("", phc)
    assert hash_password("correct horse") != phc, "a salt of its own"


def test_hashes_of_others_are_read_with_their_parameters() -> None:
    assert check_hash("password", REFERENCE)
    assert not check_hash("Password", REFERENCE)


@pytest.mark.parametrize(
    "phc",
    [
        "",
        "plain",
        "$argon2i$v=19$m=65536,t=1,p=4$c29tZXNhbHRzYWx0$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        REFERENCE.replace("v=19", "v=16"),
        REFERENCE.replace("m=65536", "m=99999999"),
        REFERENCE.replace("t=2", "t=999"),
        REFERENCE.replace("t=2", "t=0"),
        REFERENCE.replace("p=1", "p=0"),
        REFERENCE.replace("m=65536", "m=4"),
        REFERENCE + "\n",
        REFERENCE + "$x",
    ],
)
def test_a_hash_that_is_none_or_asks_for_too_much_fits_nothing(phc: str) -> None:
    assert not is_sound_hash(phc)
    assert not check_hash("password", phc)


@pytest.mark.parametrize("password", ["ÄÖÜ und 渡し守", "\0" * 8, "\ud800 half a pair", " leading and trailing "])
def test_any_characters_will_do(password: str) -> None:
    assert check_hash(password, hash_password(password))


def test_too_short_and_too_long_ones_are_refused_without_showing_them() -> None:
    for bad in ("", "7 dwarfs go", "x" * 513):
        with pytest.raises(InvalidInput, match=f"password: {len(bad)} characters; it takes 12 to 512") as caught:
            check_new(bad, shortest=12)
        assert not bad or bad not in str(caught.value)
    assert check_new("7 dwarfs go!", shortest=12) == "7 dwarfs go!"
    assert check_new("7 dwarfs", shortest=8) == "7 dwarfs"


@pytest.mark.parametrize("weak", ["aaaaaaaa", "magdalena"])
def test_eight_characters_are_all_that_the_contract_asks_for(weak: str) -> None:
    assert check_new(weak, of=("magdalena@example.org",), shortest=8) == weak


@pytest.mark.parametrize("bad", ["aaaaaaaaaaaaaaaa", "121212121212121212", "\u00fc" * 20])
def test_one_key_held_down_is_no_password(bad: str) -> None:
    with pytest.raises(InvalidInput, match="few different characters") as caught:
        check_new(bad, shortest=9)
    assert bad not in str(caught.value) and "Four words" in caught.value.remedy


@pytest.mark.parametrize("bad", ["Magdalena.26", "magdalena-kowalska", "KOWALSKA@example!", "xmagdalenakowalskax"])
def test_nor_is_its_owners_name(bad: str) -> None:
    owner = ("magdalena.kowalska@example.org", "Magdalena Li Kowalska")
    with pytest.raises(InvalidInput, match="its owner's name or address") as caught:
        check_new(bad, of=owner, shortest=9)
    assert bad not in str(caught.value)
    for good in (f"{bad} and 12 otters", "liberty, olives, lions"):
        assert check_new(good, of=owner, shortest=9) == good
    assert check_new(bad, shortest=9) == bad, "somebody else's"


def test_a_made_up_password_has_120_bits() -> None:
    made = {new_password() for _ in range(50)}
    assert len(made) == 50 and {len(p) for p in made} == {24}


def test_only_so_many_hash_at_once_and_only_so_many_wait() -> None:
    gate, go, inside, peak, refused = HashingGate(at_once=2, waiting=2), threading.Event(), [], [], []
    entered = threading.Semaphore(0)

    def one() -> None:
        try:
            with gate.turn():
                inside.append(1)
                peak.append(len(inside))
                entered.release()
                assert go.wait(30)
                inside.pop()
        except Throttled as error:
            refused.append(error.retry_after)
            entered.release()

    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    for _ in range(8):  # two that are in, and six that were turned away
        assert entered.acquire(timeout=20)
    assert len(refused) == 6 and max(peak) == 2
    go.set()
    for thread in threads:
        thread.join()
    assert max(peak) == 2 and not inside
    with gate.turn():
        pass


def test_where_there_is_no_account_as_much_is_hashed_as_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody can tell by the clock who exists."""
    costs, real = [], passwords.verify_secret

    def counting(phc: bytes, secret: bytes, kind: object) -> bool:
        costs.append(phc.split(b"$")[3])
        return real(phc, secret, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(passwords, "verify_secret", counting)
    for phc in ("", "nonsense", hash_password("something else")):
        assert not check_hash("guess", phc)
    assert costs == [b"m=65536,t=1,p=4"] * 3


def test_a_right_password_is_not_called_wrong_for_want_of_memory() -> None:
    """Nor is it counted, then, as a guess. In a process of its own, which gets none."""
    program = """
import resource
from coxswain.access.passwords import check_hash, hash_password
from coxswain.errors import Unavailable
stored = hash_password("right")
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + 8 * 2**20,) * 2)
for act in (lambda: check_hash("right", stored), lambda: check_hash("wrong", ""), lambda: hash_password("new")):
    try:
        print(act())
    except Unavailable as error:
        print("just now" in str(error) and "64 MiB" in error.remedy)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 3
