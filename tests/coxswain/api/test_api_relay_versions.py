"""A relay that somebody else changes while an operation about it is being asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coxswain.api.areas import relays
from tests.coxswain.api.conftest import token
from tests.fleet import Controller
from tests.web import Web


@pytest.fixture
def relay(webbed: Controller) -> Iterator[str]:
    with webbed.store.write() as tx:
        tx.execute(
            "INSERT INTO relays (id, name, kind, server_id, created_at, updated_at) "
            "VALUES ('rly_v', 'ferry', 'remote', 'srv_none', 1, 1)"
        )
    yield "rly_v"
    with webbed.store.write() as tx:
        tx.execute("DELETE FROM relays WHERE id = 'rly_v'")


@pytest.mark.parametrize("action", ["renew", "remove"])
def test_the_version_is_compared_when_the_operation_starts(
    webbed: Controller, web: Web, relay: str, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = relays.run_operation

    def late(*given: Any, **more: Any) -> Any:
        with webbed.store.write() as tx:
            tx.execute("UPDATE relays SET version = version + 1 WHERE id = ?", (relay,))
        return begin(*given, **more)

    monkeypatch.setattr(relays, "run_operation", late)
    web.token = token(webbed, "admin")
    answer = web.post(f"/api/relays/{relay}/{action}", {"version": 1})
    assert (answer.status, answer.json["current"]) == (409, 2)
    assert not [o for o in webbed.client.get("/api/operations") if o["target_id"] == relay]


def test_a_program_for_hosts_is_no_newer_version_of_the_relay_inside_the_daemon(
    webbed: Controller, web: Web, relay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """management-plane.md 3.4: it is offered where it can be installed."""
    monkeypatch.setattr(relays, "candidate_version", lambda _path: "v9.0.0")
    web.token = token(webbed, "readonly")
    for kind, offered in (("remote", ("v9.0.0", True)), ("embedded", ("", False))):
        with webbed.store.write() as tx:
            tx.execute("UPDATE relays SET kind = ?, agent_version = '0.1.0' WHERE id = ?", (kind, relay))
        shown = web.get(f"/api/relays/{relay}").json
        assert (shown["available_version"], shown["update_available"]) == offered
