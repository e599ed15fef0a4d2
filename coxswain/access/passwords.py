"""Passwords: Argon2id with the contract's parameters, and a cap on how many are hashed at once.

Each hash takes 64 MiB and a tenth of a second of a core (measured), so whoever may try passwords may also fill the memory:
hence the cap. The work is done on the caller's thread, a worker of the server, and never in an actor.

By argon2-cffi and not by cryptography, in which two hashes at once wait for each other for ever (50.0, OpenSSL's threads).
"""

from __future__ import annotations

import base64
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.low_level import Type, error_to_str, hash_secret, verify_secret

from coxswain.errors import InvalidInput, Throttled, Unavailable

__all__ = ["HashingGate", "check_hash", "check_new", "hash_password", "is_sound_hash", "new_password"]

_MEMORY_KIB, _PASSES, _LANES, _SALT_BYTES, _KEY_BYTES = 65_536, 1, 4, 16, 32
"""management-plane.md 10.2."""

_CONTRACTS = 8
"""Characters, and nothing else, is what clients of the contract have to send (management-plane.md 10.2). Who asks for more
wants what is hard to guess as well (accounts-profiles.md 10.2, 22: twelve).
"""

_LONGEST, _FEWEST, _BESIDE_NAME = 512, 5, 4
"""Characters, different ones among them, and those that are not the owner's name."""

_TELLING = 4
"""Letters of a name from which on it gives a password away: *Li* is in too many words."""

_MOST_MEMORY_KIB, _MOST_PASSES, _MOST_LANES = 1_048_576, 16, 64
"""A hash from a file or a foreign database may ask for other parameters, but not for all of the machine."""

_FOR_WANT = frozenset(error_to_str(code) for code in (-22, -33))
"""What the library says when it gets no memory (``ARGON2_MEMORY_ALLOCATION_ERROR``) or no thread (``ARGON2_THREAD_FAIL``);
argon2.h has the numbers.
"""

_WANTING = "It takes 64 MiB and four threads for a tenth of a second; try again, and see that the machine has them to spare."

_PHC = re.compile(r"\$argon2id\$v=19\$m=(\d{1,8}),t=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})")

_NOBODYS = "$argon2id$v=19$m=65536,t=1,p=4$" + "A" * 22 + "$" + "A" * 43
"""Compared with where there is no account, so that it takes as long as where there is one. No password is known for it."""


def check_new(password: str, name: str = "password", *, of: Iterable[str] = (), shortest: int) -> str:
    """Returns ``password`` if it may be used. Raises ``InvalidInput``; the password itself is never shown.

    ``shortest``: characters at least (``admin.password_min_length``). ``of``: what its owner is called, e-mail addresses and
    names: where more than the contract's eight characters are asked for, it must be more than that.
    """
    if not shortest <= len(password) <= _LONGEST:
        raise InvalidInput(f"{name}: {len(password)} characters; it takes {shortest} to {_LONGEST}")
    if shortest <= _CONTRACTS:
        return password
    if len(set(password)) < _FEWEST:
        raise InvalidInput(f"{name}: few different characters; it takes at least {_FEWEST}", remedy=_WORDS)
    rest = password.casefold()
    for word in sorted({w for text in of for w in _words(text)}, key=len, reverse=True):
        rest = rest.replace(word, "")
    if len(rest) < _BESIDE_NAME and len(rest) < len(password):
        raise InvalidInput(f"{name}: hardly more than its owner's name or address, which is the first guess", remedy=_WORDS)
    return password


_WORDS = "Four words that have nothing to do with each other are good."


def _words(text: str) -> Iterator[str]:
    """What a guesser would take from a name or an e-mail address."""
    return (word for word in re.split(r"[^\w]+|_", text.casefold()) if len(word) >= _TELLING)


def new_password() -> str:
    """120 random bits in lower-case base32 (management-plane.md 1.4)."""
    return base64.b32encode(secrets.token_bytes(15)).decode("ascii").lower()


def hash_password(password: str) -> str:
    """The PHC string of ``password`` under a fresh salt. Raises ``Unavailable`` for want of memory or threads."""
    try:
        phc = hash_secret(
            password.encode("utf-8", "surrogatepass"),
            secrets.token_bytes(_SALT_BYTES),
            time_cost=_PASSES,
            memory_cost=_MEMORY_KIB,
            parallelism=_LANES,
            hash_len=_KEY_BYTES,
            type=Type.ID,
        )
    except Argon2Error:
        raise Unavailable("the password cannot be hashed just now", remedy=_WANTING) from None
    return phc.decode("ascii")


def is_sound_hash(phc: str) -> bool:
    """Whether it is an Argon2id hash, with parameters that can be borne."""
    match = _PHC.fullmatch(phc)
    if match is None:
        return False
    memory, passes, lanes = (int(match[n]) for n in (1, 2, 3))
    return 8 * lanes <= memory <= _MOST_MEMORY_KIB and 1 <= passes <= _MOST_PASSES and 1 <= lanes <= _MOST_LANES


def check_hash(password: str, phc: str) -> bool:
    """Whether ``phc`` is a hash of ``password``. An empty or unsound ``phc`` is nobody's, and takes as long to find out.

    Raises ``Unavailable`` if it cannot be found out for want of memory or threads: a right one must not be called wrong.
    """
    theirs = phc if is_sound_hash(phc) else _NOBODYS
    try:
        verify_secret(theirs.encode("ascii"), password.encode("utf-8", "surrogatepass"), Type.ID)
    except (Argon2Error, InvalidHashError) as error:
        if str(error) in _FOR_WANT:
            raise Unavailable("passwords cannot be checked just now", remedy=_WANTING) from None
        return False
    return theirs is phc


class HashingGate:
    """So many at once, so many more that wait; the rest is turned away. Thread-safe.

    Args:
        at_once: hashes under way.
        waiting: threads that wait for their turn; each holds a worker of the server.
    """

    def __init__(self, at_once: int = 2, waiting: int = 2) -> None:
        self._turns = threading.BoundedSemaphore(at_once)
        self._places = threading.BoundedSemaphore(at_once + waiting)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Raises ``Throttled`` if too many wait already."""
        if not self._places.acquire(blocking=False):
            raise Throttled("too many passwords are being checked just now", retry_after=1.0)
        try:
            with self._turns:
                yield
        finally:
            self._places.release()
