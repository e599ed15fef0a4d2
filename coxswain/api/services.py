"""What the API needs of the running system, so that it knows nothing of actors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from coxswain.control_path.model import Route
from coxswain.live.renderings import Renderings
from coxswain.model import Node

__all__ = ["Identity", "Services"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Facts of this run of the daemon. ``started_at``: epoch seconds. ``chaos``: it lets itself be harmed."""

    version: str
    pid: int
    started_at: float
    store: str
    state_dir: str
    chaos: bool = False


class Services(Protocol):
    """The running system, seen from a door."""

    @property
    def identity(self) -> Identity: ...

    @property
    def renderings(self) -> Renderings:
        """Pieces of pages that all browsers share."""
        ...

    def ask(self, name: str, message: Any, *, deadline: float) -> Any:
        """Asks an actor; raises ``CoxswainError``."""
        ...

    def tree(self, *, links: bool = True) -> dict[str, Any]:
        """The service tree as JSON values; asks nobody. ``links``: with those of nodes, of which there may be thousands."""
        ...

    def setting(self, name: str) -> Any:
        """The present value of a configuration key."""
        ...

    def see_host_key(self, host: str, port: int, route: Sequence[str] = ()) -> str:
        """The key that a machine shows over SSH; blocks. Raises ``NodeFailure``, ``Refused`` (no such route)."""
        ...

    def probe_route(self, route: Route, nodes: Sequence[Node]) -> str:
        """Whether every hop of a route answers, and one of these nodes through it, in one line; blocks. What is in force
        stays in force. Raises ``NodeFailure``, which names the hop; ``Unavailable``.
        """
        ...

    def check_harm(self, name: str, how: str) -> None:
        """Whether ``harm`` would do it. Raises as that does."""
        ...

    def harm(self, name: str, how: str, seconds: float) -> None:
        """Hurts an actor on purpose, where that is allowed. Raises ``Refused``, ``NotFound``, ``InvalidInput``."""
        ...
