"""Which agents a removal asks to take their clients off; what the step asks is played by the test."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coxswain.messages import fleet
from coxswain.model import LinkState, NetworkPolicy
from coxswain.onboarding import removal as steps


class Played:
    """Of a node whose agent was put there by hand: no unit of ours runs, whatever its link says."""

    params = {"node_id": "nod_a"}  # noqa: RUF012
    data: dict[str, Any] = {}  # noqa: RUF012
    caller = SimpleNamespace()

    def __init__(self, state: LinkState) -> None:
        self.state = state
        self.remembered: dict[str, Any] = {}
        self.drained = False

    def ask(self, _actor: str, message: Any) -> Any:
        if isinstance(message, fleet.CheckNodeUnused):
            return None
        node = SimpleNamespace(id="nod_a", name="a", enabled=True, policy=NetworkPolicy(), endpoint_ports=None)
        return SimpleNamespace(node=node, link_state=self.state, in_sync=True)

    def change(self, _actor: str, message: Any) -> None:
        assert isinstance(message, fleet.DrainNode)
        self.drained = True

    def remember(self, **what: Any) -> None:
        self.remembered |= what

    def wait_for(self, check: Any, _what: str, *, timeout: float) -> None:
        assert timeout > 0
        assert check()

    def say(self, _: str) -> None: ...


@pytest.mark.parametrize(
    ("state", "drained"),
    [
        (LinkState.LIVE, True),
        (LinkState.DEGRADED, True),
        (LinkState.SYNCING, True),
        (LinkState.BACKING_OFF, False),
        (LinkState.CONNECTING, False),
    ],
)
def test_an_agent_that_answers_is_drained_also_where_no_unit_of_ours_runs(
    state: LinkState, drained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = SimpleNamespace(run=lambda *_, **__: SimpleNamespace(code=3), read=lambda _: None)
    monkeypatch.setattr(steps, "open_host", lambda *_: host)
    work = Played(state)
    steps._drain(work, None)  # type: ignore[arg-type]
    assert work.drained is drained
