"""Ids that stand for numbers."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.ids import ID_PATTERN, ordered_id

NUMBERS = st.integers(0, 2**80 - 1)
_DIGITS = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"234567abcdefghijklmnopqrstuvwxyz")


@given(NUMBERS, NUMBERS)
def test_ids_of_rising_numbers_rise(one: int, other: int) -> None:
    assert (ordered_id("cev", one) < ordered_id("cev", other)) == (one < other)


@given(NUMBERS)
def test_they_look_like_any_other_and_are_base32(number: int) -> None:
    made = ordered_id("cev", number)
    assert ID_PATTERN.fullmatch(made)
    assert made == f"cev_{base64.b32encode(number.to_bytes(10)).translate(_DIGITS).decode()}"


@pytest.mark.parametrize("number", [-1, 2**80])
def test_numbers_that_do_not_fit_are_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        ordered_id("cev", number)
