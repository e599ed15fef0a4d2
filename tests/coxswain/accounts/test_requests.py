"""What strangers send to AccountSync: refused or made fit, whatever it is; and what they are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain import errors
from coxswain.accounts.keyblob import wrap_key
from coxswain.accounts.primitives import x25519_public_key
from coxswain.accounts.requests import check_claim, check_keys, is_fingerprint, status_of
from coxswain.provisioning.checks import check_label, check_platform

KEY = x25519_public_key(b"\x07" * 32)


@given(name=st.text(max_size=300), platform=st.text(max_size=300))
def test_any_name_becomes_one_that_a_device_may_have(name: str, platform: str) -> None:
    asked = check_claim("token", b"csr", name, platform, KEY)
    assert check_label("name", asked.name)
    assert check_platform(asked.platform)


@given(token=st.text(max_size=400), csr=st.binary(max_size=40), key=st.binary(max_size=40))
def test_anything_else_is_taken_as_it_is_or_refused(token: str, csr: bytes, key: bytes) -> None:
    try:
        asked = check_claim(token, csr, "", "", key)
    except errors.InvalidInput as refused:
        secret = token.strip()
        shown = str(refused)
    else:
        assert 0 < len(asked.token) <= 200
        assert (asked.csr_pem, len(asked.encryption_key)) == (csr, 32)
        secret, shown = asked.token, repr(asked)
    assert len(secret) < 20 or secret not in shown


@given(public=st.binary(max_size=31) | st.binary(min_size=33, max_size=40), wrapped=st.binary(max_size=200))
def test_keys_of_accounts_are_keys(public: bytes, wrapped: bytes) -> None:
    with pytest.raises(errors.InvalidInput):
        check_keys(public, wrapped)


@given(wrapped=st.binary(min_size=1, max_size=4096))
def test_what_a_client_wraps_is_its_own_matter(wrapped: bytes) -> None:
    """accounts-profiles.md 3.4: opaque to the controller."""
    assert check_keys(KEY, wrapped) == (KEY, wrapped)


@pytest.mark.parametrize("size", [0, 4097])
def test_but_not_nothing_and_not_without_end(size: int) -> None:
    with pytest.raises(errors.InvalidInput, match="1 to 4096"):
        check_keys(KEY, b"x" * size)


def test_a_key_of_an_account_that_is_one() -> None:
    blob = wrap_key(b"\x07" * 32, "pass phrase")
    assert check_keys(KEY, blob) == (KEY, blob)
    with pytest.raises(errors.InvalidInput, match="no secret"):
        check_keys(bytes(32), blob)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput("x"), "INVALID_ARGUMENT"),
        (errors.Unauthenticated("x"), "UNAUTHENTICATED"),
        (errors.Refused("x"), "PERMISSION_DENIED"),
        (errors.NotFound("x"), "NOT_FOUND"),
        (errors.AlreadyExists("x"), "ALREADY_EXISTS"),
        (errors.AddressesExhausted("x"), "FAILED_PRECONDITION"),
        (errors.Throttled("x", retry_after=1.0), "RESOURCE_EXHAUSTED"),
        (errors.Unavailable("x"), "UNAVAILABLE"),
        (errors.DeadlineExceeded("x"), "UNAVAILABLE"),
        (errors.StoreUnavailable("the database at 10.0.0.7"), "INTERNAL"),
        (errors.KeyUnavailable("the key ca.key"), "INTERNAL"),
        (RuntimeError("surprise"), "INTERNAL"),
    ],
)
def test_every_error_has_a_status(error: Exception, code: str) -> None:
    """accounts-profiles.md 2.4. Of our own troubles, strangers are told nothing."""
    found, text = status_of(error)
    assert found == code
    if code in ("INTERNAL", "UNAVAILABLE"):
        assert str(error) not in text or str(error) == "x"
        assert "try again later" in text


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, " sha256:" + "a" * 64, "a" * 64]
)
def test_what_is_no_fingerprint(text: str) -> None:
    assert not is_fingerprint(text)
    assert is_fingerprint("sha256:" + "a1" * 32)
