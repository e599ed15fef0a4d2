"""All kinds of operations on machines."""

from __future__ import annotations

from coxswain.onboarding.node import node_kinds
from coxswain.onboarding.relay import relay_kinds
from coxswain.onboarding.rollout import rollout_kind
from coxswain.onboarding.server import server_add
from coxswain.operations import Kind
from coxswain.ssh import Dialer

__all__ = ["onboarding_kinds"]


def onboarding_kinds(dialer: Dialer) -> tuple[Kind, ...]:
    """``dialer``: the way to machines; along the control path when there is one."""
    return (server_add(dialer), *node_kinds(dialer), *relay_kinds(dialer), rollout_kind())
