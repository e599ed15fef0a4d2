"""Which tunnels there are to be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from actors.relays.supervisor import Relays
from coxswain.servers import Relay, RelayKind

OFF: dict[str, Any] = {
    "relay.remote": False,
    "relay.remote_endpoints": ["b.example:8444", "c.example:8444"],
    "relay.embedded": True,
    "relay.client_listen": "",
}


def wanted(relays: list[Relay], **changes: Any) -> dict[str, str]:
    settings = OFF | {name.replace("__", "."): value for name, value in changes.items()}
    found: dict[str, str] = Relays._wanted(SimpleNamespace(_settings=settings), relays)  # type: ignore[arg-type]
    return found


def test_active_remote_relays_with_an_endpoint_have_a_tunnel() -> None:
    relays = [
        Relay("a", "a", endpoint="a.example:8444", status="active"),
        Relay("b", "b", endpoint="b.example:8444", status="provisioning"),
        Relay("c", "c", egress_endpoint="c.example:8456", status="active"),
        Relay("d", "d", RelayKind.EMBEDDED, endpoint="d.example:8444", status="active"),
    ]
    assert wanted(relays) == {"a": "a.example:8444"}


def test_endpoints_of_the_configuration_are_dialled_when_it_says_so_and_once() -> None:
    relays = [Relay("b", "b", endpoint="b.example:8444", status="active")]
    found = wanted(relays, relay__remote=True)
    assert found == {"b": "b.example:8444", "c.example:8444": "c.example:8444"}


def test_nothing_listens_unless_it_is_said_where() -> None:
    assert wanted([]) == {}
    assert wanted([], relay__client_listen=":8443") == {"embedded": ":8443"}
    assert wanted([], relay__client_listen=":8443", relay__embedded=False) == {}
