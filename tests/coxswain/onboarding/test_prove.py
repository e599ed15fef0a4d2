"""When an upgrade believes that the new agent is up; what it asks is played by the test."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from coxswain.errors import NodeUnreachable
from coxswain.messages import links
from coxswain.model import LinkState
from coxswain.onboarding import node as steps

VIEW = SimpleNamespace(
    link_state=LinkState.LIVE,
    since=2.0,
    in_sync=True,
    node=SimpleNamespace(policy_confirmed="x", agent_version="0.3.2", config_revision=7),
)


class Played:
    """A link that came up to the old agent after ``restarted_at`` and has not noticed that it was stopped."""

    data = {"node_id": "nod_a", "restarted_at": 1.0}  # noqa: RUF012
    params: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.tries = 0

    def now(self) -> float:
        return 3.0

    def ask(self, _actor: str, message: Any) -> Any:
        if not isinstance(message, links.PreviewPlan):
            return VIEW
        self.tries += 1
        if self.tries < 3:
            raise NodeUnreachable("GetStatus: the connection was closed")
        return None

    def wait_for(self, check: Any, what: str, *, timeout: float, every: float) -> None:
        assert what and timeout > every > 0
        while not check():
            pass

    def keep(self, **_: Any) -> None: ...

    def say(self, _: str) -> None: ...

    def tell(self, _actor: str, _message: Any) -> None: ...


def test_a_link_that_only_looks_live_proves_nothing() -> None:
    work = Played()
    host = SimpleNamespace(name="h", run=lambda *_, **__: SimpleNamespace(code=0))
    steps._prove(work, host)  # type: ignore[arg-type]
    assert work.tries == 3
