"""``relays``: the dynamic supervisor of tunnels and of the embedded relay. It holds exactly those that there should be.

The set is read late, whenever something says that it changed, and every minute. A relay that is away is ordinary life, so
tunnels never count towards a restart intensity.
"""

from __future__ import annotations

from typing import Any

from actors.relays.embedded import EmbeddedRelay
from actors.relays.services import RelayServices
from actors.relays.tunnel import RelayTunnel
from actors.supervision import Backoff, ChildSpec, Context, DynamicSupervisor, Pending
from coxswain.errors import CoxswainError
from coxswain.messages.ca import GetRelayCredentials, RelayCredentials
from coxswain.messages.relays import (
    EMBEDDED,
    DescribeTunnels,
    RelayCredentialsRenewed,
    RelaySetChanged,
    TunnelReport,
    TunnelView,
)
from coxswain.messages.servers import ListRelays
from coxswain.provisioning.offer import Settings
from coxswain.servers import Relay, RelayKind

__all__ = ["Relays", "tunnel_name"]

_BACKOFF = Backoff(min_s=0.05, max_s=20.0, factor=2.0, reset_after_s=30.0)
_EMBEDDED_NAME = "embedded_relay"
_ASK_S = 5.0
_RETRY_S = 1.0
_LOOK_S = 60.0


class _Look:
    """To itself, every minute."""


class _ReadAgain:
    """To itself: the set or the certificate was not to be had. There is one of them at most."""


def tunnel_name(relay_id: str) -> str:
    """The actor of one tunnel."""
    return f"relay_tunnel:{relay_id}"


class Relays(DynamicSupervisor):
    """See the module."""

    def __init__(self, context: Context, *, services: RelayServices, settings: Settings) -> None:
        super().__init__(context)
        self._services = services
        self._settings = settings
        self._held: dict[str, str] = {}  # relay ids, and what each is dialled or listens at
        self._views: dict[str, TunnelView] = {}
        self._again = Pending(context)

    def started(self) -> None:
        super().started()
        self._read()
        self.context.after(_LOOK_S, _Look())

    def receive(self, message: Any) -> Any:
        match message:
            case _ReadAgain():
                self._read()
            case RelaySetChanged() | RelayCredentialsRenewed():
                self._read_soon()
            case _Look():
                self._read_soon()
                self.context.after(_LOOK_S, message)
            case TunnelReport(view):
                if self._held.get(view.relay_id) == view.endpoint:
                    self._views[view.relay_id] = view
            case DescribeTunnels():
                return tuple(self._views[relay_id] for relay_id in sorted(self._views))
            case _:
                return super().receive(message)
        return None

    def _read_soon(self) -> None:
        """At once; where it came to nothing just now, with the next attempt: each may wait for others for seconds."""
        if not self._again.waits:
            self._read()

    def _read(self) -> None:
        self._again.cancel()
        wanted: dict[str, str] = {}
        try:
            if self._settings["accounts.sync"]:
                wanted = self._wanted(self.context.ask("servers", ListRelays(), deadline=_ASK_S))
            if wanted:
                ask = GetRelayCredentials(_host(self._settings["relay.public_endpoint"]))
                self._use(self.context.ask("certificate_authority", ask, deadline=_ASK_S))
        except CoxswainError as error:
            self.context.log.warning("which relays there are is not to be had just now: %s", error)
            self._again.after(_RETRY_S, _ReadAgain())
            return
        for relay_id, endpoint in list(self._held.items()):
            if wanted.get(relay_id) != endpoint:
                self.terminate_child(_name(relay_id))
                del self._held[relay_id]
                self._views.pop(relay_id, None)
        for relay_id, endpoint in wanted.items():
            if relay_id not in self._held:
                self._held[relay_id] = endpoint
                self.start_child(self._spec(relay_id, endpoint))

    def _use(self, credentials: RelayCredentials) -> None:
        """Tunnels take what there is when they dial; who listens is told of what is new, whenever it was to be had."""
        before, self._services.credentials = self._services.credentials, credentials
        if EMBEDDED in self._held and (before is None or _shown(before) != _shown(credentials)):
            self.context.tell(_EMBEDDED_NAME, RelayCredentialsRenewed())

    def _wanted(self, relays: list[Relay]) -> dict[str, str]:
        """Each endpoint once: those of the inventory, of the configuration, and our own."""
        found = {
            relay.id: relay.endpoint
            for relay in relays
            if relay.kind is RelayKind.REMOTE and relay.status == "active" and relay.endpoint
        }
        if self._settings["relay.remote"]:
            known = set(found.values())
            found |= {endpoint: endpoint for endpoint in self._settings["relay.remote_endpoints"] if endpoint not in known}
        if self._settings["relay.embedded"] and self._settings["relay.client_listen"]:
            found[EMBEDDED] = self._settings["relay.client_listen"]
        return found

    def _spec(self, relay_id: str, endpoint: str) -> ChildSpec:
        return ChildSpec(
            id=_name(relay_id),
            actor=EmbeddedRelay if relay_id == EMBEDDED else RelayTunnel,
            kwargs={"relay_id": relay_id, "endpoint": endpoint, "services": self._services},
            shutdown_s=5.0,
            backoff=_BACKOFF,
        )


def _shown(credentials: RelayCredentials) -> tuple[bytes, ...]:
    return credentials.chain_pem, credentials.key_pem, credentials.fleet_ca_pem, credentials.device_ca_pem


def _name(relay_id: str) -> str:
    return _EMBEDDED_NAME if relay_id == EMBEDDED else tunnel_name(relay_id)


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0].removeprefix("[").removesuffix("]")
