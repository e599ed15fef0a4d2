"""One-time codes: the RFC's vectors, drift, replay; recovery codes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.access.totp import (
    code_at,
    matching_step,
    new_recovery_codes,
    new_secret,
    otpauth_url,
    recovery_digest,
    shown_secret,
)

SECRET = b"12345678901234567890"


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (20000000000, "65353130"),
    ],
)
def test_the_vectors_of_rfc_6238(seconds: int, code: str) -> None:
    """Appendix B, SHA-1; the last six digits of eight."""
    assert code_at(SECRET, seconds // 30) == code[2:]


def test_a_step_before_and_after_will_do_and_no_more() -> None:
    now = 1_000_000 * 30.0 + 5
    for off in (-1, 0, 1):
        assert matching_step(SECRET, code_at(SECRET, 1_000_000 + off), now, last_step=0) == 1_000_000 + off
    for off in (-2, 2):
        assert matching_step(SECRET, code_at(SECRET, 1_000_000 + off), now, last_step=0) is None


def test_a_code_is_good_once_and_those_before_it_no_more() -> None:
    now = 1_000_000 * 30.0
    assert matching_step(SECRET, code_at(SECRET, 1_000_000), now, last_step=1_000_000) is None
    assert matching_step(SECRET, code_at(SECRET, 999_999), now, last_step=1_000_000) is None
    assert matching_step(SECRET, code_at(SECRET, 1_000_001), now, last_step=1_000_000) == 1_000_001


@given(st.text(max_size=20))
def test_nonsense_is_no_code(text: str) -> None:
    step = matching_step(SECRET, text, 90.0, last_step=-1)
    assert step is None or text.replace(" ", "") == code_at(SECRET, step)


def test_spaces_in_a_code_do_not_matter() -> None:
    code = code_at(SECRET, 3)
    assert matching_step(SECRET, f"{code[:3]} {code[3:]}", 90.0, last_step=0) == 3


def test_what_an_authenticator_is_shown() -> None:
    assert shown_secret(SECRET) == "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    url = otpauth_url(SECRET, "eva@example.net")
    assert url == ("otpauth://totp/coxswain%3Aeva%40example.net?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=coxswain")
    assert len(new_secret()) == 20


def test_recovery_codes_are_long_and_forgive_how_they_are_typed() -> None:
    codes = new_recovery_codes()
    assert len(set(codes)) == 10 and all(len(code.replace("-", "")) == 16 for code in codes)
    assert recovery_digest(codes[0]) == recovery_digest(f"  {codes[0].upper().replace('-', ' ')} ")
    assert recovery_digest(codes[0]) != recovery_digest(codes[1])
