"""What an operator is told of a push, in the words of existing callers (management-plane.md 3.3, 8.2)."""

from __future__ import annotations

import pytest

from actors.link_questions import _push_outcome
from actors.node_change import Changed
from coxswain.cascade.types import NodeCascade
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.coxswain.reconcile.samples import peer
from tests.coxswain.reconcile.test_plan_cascade import EDGE, REALITY, state

PUSHED = pb.PushConfigResponse(applied_revision=5, reloaded=True)


@pytest.mark.parametrize(("xray", "skipped"), [(None, False), (True, False), (False, True)])
def test_xray_is_skipped_only_where_the_agent_has_none(xray: bool | None, skipped: bool) -> None:
    """A fleet without XRay skips none."""
    wanted = state(peer(1), reality=None if xray is None else REALITY)
    outcome = _push_outcome(wanted, Changed(pushed=PUSHED, xray=xray), PUSHED)
    assert (outcome.xray_skipped, outcome.xray_peers) == (skipped, 0)


def test_an_exit_has_a_cascade_too_although_it_has_no_links() -> None:
    exits = _push_outcome(state(peer(1), cascade=NodeCascade((), (EDGE,))), Changed(pushed=PUSHED), PUSHED)
    assert (exits.cascade_reapplied, exits.links_configured) == (True, 0)
    assert not _push_outcome(state(peer(1)), Changed(pushed=PUSHED), PUSHED).cascade_reapplied
