"""Tokens and cookies by their shape; lifetimes as Go writes them."""

from __future__ import annotations

import re

import pytest

from coxswain.access.secrets import digest, new_cookie, new_token, parse_lifetime
from coxswain.errors import InvalidInput


@pytest.mark.parametrize(("scope", "abbreviation"), [("readonly", "ro"), ("monitor", "mon"), ("admin", "adm")])
def test_a_token_says_its_scope_and_is_kept_as_a_hash(scope: str, abbreviation: str) -> None:
    made = new_token(scope)
    assert re.fullmatch(rf"cox_{abbreviation}_[A-Za-z0-9_-]{{43}}", made.secret)
    assert made.prefix == made.secret[:12]
    assert made.digest == digest(made.secret) and re.fullmatch("[0-9a-f]{64}", made.digest)
    assert made.secret not in repr(made)
    assert new_token(scope).secret != made.secret


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'root' is not a scope; readonly, monitor, admin"):
        new_token("root")


def test_a_cookie_is_256_random_bits() -> None:
    made = new_cookie()
    assert re.fullmatch("[A-Za-z0-9_-]{43}", made.secret) and made.secret not in repr(made)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("0", None),
        ("0s", None),
        ("720h", 2_592_000.0),
        ("1h30m", 5_400.0),
        ("1.5h", 5_400.0),
        (" 90s ", 90.0),
        ("250ms", 0.25),
        ("1us", 1e-6),
        ("2h45m10s", 9_910.0),
    ],
)
def test_lifetimes(text: str, seconds: float | None) -> None:
    assert parse_lifetime(text) == (pytest.approx(seconds) if seconds else None)


@pytest.mark.parametrize(
    "text", ["-1h", "1", "h", "1d", "1h-1m", "1 h", "soon", "99999999h", "1h;", "\uff11h", "1" * 99 + "h"]
)
def test_what_is_no_lifetime(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^expires: "):
        parse_lifetime(text)
