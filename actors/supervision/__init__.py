"""Supervision for Pykka actors, in the manner of Erlang/OTP. Knows nothing of VPNs; see docs/supervision.md.

A ``System`` runs a tree of ``Supervisor`` and ``Actor`` children described by ``ChildSpec``. Actors reach each other by
name, through their ``Context``; whoever ends, in whatever way, is seen and replaced as its supervisor's ``Strategy`` says.
"""

from actors.supervision.actor import Actor
from actors.supervision.children import TreeNode
from actors.supervision.context import Context
from actors.supervision.directory import Directory
from actors.supervision.dynamic import DynamicSupervisor, StartChild, TerminateChild
from actors.supervision.pending import Pending
from actors.supervision.signals import Chaos, Harm, LifecycleEvent, LifecycleRecord
from actors.supervision.spec import Backoff, ChildSpec, ChildState, Intensity, Restart, Strategy
from actors.supervision.supervisor import Supervisor, WhichChildren
from actors.supervision.system import System
from actors.supervision.timers import Timer

__all__ = [
    "Actor",
    "Backoff",
    "Chaos",
    "ChildSpec",
    "ChildState",
    "Context",
    "Directory",
    "DynamicSupervisor",
    "Harm",
    "Intensity",
    "LifecycleEvent",
    "LifecycleRecord",
    "Pending",
    "Restart",
    "StartChild",
    "Strategy",
    "Supervisor",
    "System",
    "TerminateChild",
    "Timer",
    "TreeNode",
    "WhichChildren",
]
