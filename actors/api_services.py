"""The running system as the API's doors see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from actors.route_probe import RouteProbe
from actors.supervision import Harm, System, TreeNode
from coxswain.api.services import Identity
from coxswain.config.live import LiveConfig
from coxswain.control_path.model import Route
from coxswain.errors import InvalidInput, NotFound, Refused
from coxswain.live.renderings import Renderings
from coxswain.live.ring import EventRing
from coxswain.model import Node
from coxswain.ssh.connection import Target, see_host_key
from coxswain.ssh.dial import Dialer

__all__ = ["ApiServices"]


class ApiServices:
    """See ``coxswain.api.services.Services``. Any thread may call it.

    Attributes:
        system: set when the system is put together, before it starts.
    """

    def __init__(
        self, identity: Identity, settings: LiveConfig, ring: EventRing, probe: RouteProbe, host_dialer: Dialer
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._probe = probe
        self._host_dialer = host_dialer
        self._renderings = Renderings(lambda: ring.last)
        self.system: System | None = None

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def renderings(self) -> Renderings:
        return self._renderings

    def ask(self, name: str, message: Any, *, deadline: float) -> Any:
        return self._running().ask(name, message, deadline=deadline)

    def tree(self, *, links: bool = True) -> dict[str, Any]:
        return _tree(self._running().tree(() if links else ("node_links",)))

    def setting(self, name: str) -> Any:
        return self._settings[name]

    def see_host_key(self, host: str, port: int, route: Sequence[str] = ()) -> str:
        return see_host_key(Target(host, port, route=tuple(route)), self._host_dialer)

    def probe_route(self, route: Route, nodes: Sequence[Node]) -> str:
        return self._probe.run(route, nodes)

    def check_harm(self, name: str, how: str) -> None:
        if not self._identity.chaos:
            raise Refused("this daemon does not let itself be harmed", remedy="Start it with: cox serve --allow-chaos")
        ways = [*(harm.value for harm in Harm), "fail_start"]
        if how not in ways:
            raise InvalidInput(f"how: {how[:40]!r} is not a way; {', '.join(ways)}")
        if self._running().directory.find(name) is None:
            raise _nobody(name)

    def harm(self, name: str, how: str, seconds: float) -> None:
        self.check_harm(name, how)
        if how == "fail_start":
            self._running().fail_next_start(name)
            how = Harm.RAISE.value
        if not self._running().harm(name, Harm(how), seconds):
            raise _nobody(name)

    def _running(self) -> System:
        if self.system is None:
            raise NotFound("the system is not put together yet")
        return self.system


def _nobody(name: str) -> NotFound:
    return NotFound(f"actor: there is no {name[:80]!r} just now", remedy="See: cox tree")


_TREE_FIELDS = tuple(field.name for field in dataclasses.fields(TreeNode) if field.name != "children")


def _tree(node: TreeNode) -> dict[str, Any]:
    fields = {name: getattr(node, name) for name in _TREE_FIELDS}
    fields["state"] = node.state.value
    return fields | {"children": [_tree(child) for child in node.children]}
