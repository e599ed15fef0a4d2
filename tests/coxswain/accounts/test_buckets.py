"""Token buckets: so many at once, then so many in a time, each key for itself, and bounded in number."""

from __future__ import annotations

import pytest

from coxswain.accounts import buckets
from coxswain.accounts.buckets import Buckets, Rate
from coxswain.errors import Throttled


def test_a_burst_and_then_one_at_a_time() -> None:
    levels = Buckets(Rate(burst=3, per_s=10.0))
    for _ in range(3):
        levels.take("a", 0.0)
    with pytest.raises(Throttled) as throttled:
        levels.take("a", 5.0)
    assert throttled.value.retry_after == pytest.approx(5.0)
    levels.take("b", 5.0)
    levels.take("a", 10.0)
    with pytest.raises(Throttled):
        levels.take("a", 10.0)


def test_what_was_good_costs_nothing() -> None:
    levels = Buckets(Rate(burst=1, per_s=1_000.0))
    for now in range(100):
        levels.take("a", float(now))
        levels.give_back("a", float(now))
    levels.give_back("a", 100.0)
    levels.take("a", 100.0)
    with pytest.raises(Throttled):
        levels.take("a", 100.0)


def test_it_holds_so_many_keys_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_MOST_KEYS", 2)
    levels = Buckets(Rate(burst=1, per_s=1_000.0))
    for key in "abc":
        levels.take(key, 0.0)
    levels.take("a", 0.0)  # the oldest was forgotten
    with pytest.raises(Throttled):
        levels.take("c", 0.0)
