"""What the alert rules read, on each backend."""

from __future__ import annotations

from coxswain.clock import to_micros
from coxswain.store import Store
from coxswain.store.alert_reads import expirings

NOW = 1_767_225_600.0
DAY = 86_400.0


def test_tokens_that_ended_long_ago_do_not_hide_those_that_end_soon(store: Store) -> None:
    """Nobody takes those out of the table."""
    tokens = [(f"tok_{number}", NOW - (2_000 - number) * DAY) for number in range(1_100)]
    tokens += [("tok_soon", NOW + DAY), ("tok_late", NOW + 8 * DAY)]
    with store.write() as tx:
        tx.executemany(
            "INSERT INTO api_tokens (id, name, scope, token_hash, token_prefix, created_by, created_at, expires_at) "
            "VALUES (?, ?, 'readonly', ?, '', '', 0, ?)",
            [(token, token, token, to_micros(until)) for token, until in tokens],
        )
    with store.read() as tx:
        assert [found.id for found in expirings(tx, NOW, NOW + 7 * DAY)] == ["tok_soon"]
