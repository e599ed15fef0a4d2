"""What a device's page says of how it is known to AccountSync, and what it has fetched."""

from __future__ import annotations

from typing import Any

from coxswain.web.render import render

DEVICE: dict[str, Any] = {"id": "dev_1", "peer_count": 2, "profile_revision": 4, "credentials": [], "identity": None}
KNOWN = {
    "enrolled_at": "2026-06-01T10:00:00Z",
    "not_after": "2027-06-01T10:00:00Z",
    "last_sync_at": "2026-06-02T10:00:00Z",
    "last_sync_revision": 3,
    "last_sync_relay": "<ferry>",
    "stale": False,
}


def shown(identity: dict[str, Any] | None) -> str:
    return render("_device_facts.html", {"d": DEVICE | {"identity": identity}}).decode()


def test_a_device_that_never_enrolled() -> None:
    assert "never; invite it" in shown(None) and "cox profiles export dev_1" in shown(None)
    assert "Fetched" not in shown(None)


def test_one_that_did_and_what_it_fetched() -> None:
    page = shown(KNOWN)
    assert "revision 3" in page and "through &lt;ferry&gt;" in page and "2027-06-01" in page
    assert "Stale" not in page and "Stale" in shown(KNOWN | {"stale": True})
    assert "nothing yet" in shown(KNOWN | {"last_sync_at": None, "last_sync_revision": None, "last_sync_relay": None})
