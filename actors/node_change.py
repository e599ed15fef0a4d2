"""What is done to a node, call by call, on the I/O loop. Decides nothing but what cannot follow a call that failed.

The order is the contract's (node-contract.md 11.4, rule 7): inner links, peers, the policy with its transits, XRay; and last
of all the links that no transit needs any more. A link that cannot be configured keeps nothing else from the node: peers,
and with them revocations, go on. Only a policy that needs that link has to wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from coxswain.errors import NodeFailure, NodeUnreachable
from coxswain.reconcile.codec import PeerRows
from coxswain.wire.node_control import NodeControl, RpcFailed, explain
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

__all__ = ["XRAY_STEP", "Change", "Changed", "Configure", "Look", "Remove", "carry_out"]

R = TypeVar("R", bound=Message)

XRAY_STEP = "PushConfig of XRay"
"""Of ``Changed.failed_at``."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at a node brought: its status and its peers; None: its agent lists none. ``asked_at``: monotonic seconds
    and epoch seconds. ``rows``: what was read of ``peers`` already; None: nothing.
    """

    status: pb.GetStatusResponse
    peers: pb.ListPeersResponse | None = field(repr=False)  # has preshared keys
    asked_at: tuple[float, float]
    rows: PeerRows | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Configure:
    """ConfigureInnerLink. ``mark``: what is then confirmed (``coxswain.reconcile.types.LinkMemory.links``)."""

    config: pb.InnerLinkConfig = field(repr=False)  # has a preshared key
    mark: str

    @property
    def interface(self) -> str:
        return self.config.interface


@dataclass(frozen=True, slots=True)
class Remove:
    """RemoveInnerLink; ``first``: to be configured before, or the agent does not know it."""

    interface: str
    first: pb.InnerLinkConfig | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What to do to a node, in this order.

    Attributes:
        link_revision: for all inner links; never sent before.
        needs: the interfaces that ``policy`` sends traffic into. Without one of them it would fail, and leave the node
            without any rules (node-contract.md 7.5).
        verify: read the peers back at the end.
    """

    configure: tuple[Configure, ...] = ()
    push: pb.PushConfigRequest | None = field(default=None, repr=False)  # has preshared keys
    policy: pb.NetworkConfig | None = None
    xray: pb.PushConfigRequest | None = field(default=None, repr=False)  # has credentials
    remove: tuple[Remove, ...] = ()
    link_revision: int = 0
    needs: frozenset[str] = frozenset()
    verify: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """How far a change came.

    Attributes:
        configured: interface to mark, of the links that are in place.
        removed, forgotten: interfaces that are gone, and those that the agent may not know any more.
        stale: a link's revision was too old for the node.
        xray: None: not pushed; False: the agent has no XRay.
        failure: the first one; None: all of it was done. ``failed_at`` names its step.
    """

    configured: Mapping[str, str] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    forgotten: frozenset[str] = frozenset()
    stale: bool = False
    pushed: pb.PushConfigResponse | None = None
    policy_applied: bool = False
    xray: bool | None = None
    look: Look | None = None
    failure: NodeFailure | None = None
    failed_at: str = ""


async def carry_out(control: NodeControl, change: Change, look: Callable[[], Awaitable[Look]]) -> Changed:
    """Never raises what a node can cause: how far it came is in the reply. A node that is out of reach is left at once."""
    work = _Work(control, change.link_revision)
    try:
        for link in change.configure:
            await work.configure(link)
        await work.peers_and_policy(change)
        if change.xray is not None:
            await work.xray(change.xray)
        if change.policy is None or work.policy_applied:  # else transits may still point at them (node-contract.md 4.13)
            for removal in change.remove:
                await work.remove(removal)
    except NodeUnreachable as failure:
        return work.result(failure)
    if work.failure is not None or not change.verify:
        return work.result()
    try:
        return work.result(look=await look())
    except NodeFailure as failure:
        work.failed_at = "verify"
        return work.result(failure)


class _Work:
    def __init__(self, control: NodeControl, link_revision: int) -> None:
        self._control = control
        self._revision = link_revision
        self._configured: dict[str, str] = {}
        self._removed: set[str] = set()
        self._forgotten: set[str] = set()
        self._stale = False
        self._pushed: pb.PushConfigResponse | None = None
        self.policy_applied = False
        self._xray: bool | None = None
        self.failure: NodeFailure | None = None
        self.failed_at = ""

    def result(self, failure: NodeFailure | None = None, look: Look | None = None) -> Changed:
        return Changed(
            configured=self._configured,
            removed=frozenset(self._removed),
            forgotten=frozenset(self._forgotten),
            stale=self._stale,
            pushed=self._pushed,
            policy_applied=self.policy_applied,
            xray=self._xray,
            look=look,
            failure=self.failure or failure,
            failed_at=self.failed_at,
        )

    async def configure(self, link: Configure) -> None:
        if await self._configure(link.config):
            self._configured[link.interface] = link.mark

    async def peers_and_policy(self, change: Change) -> None:
        if change.push is not None:
            self._pushed = await self._call("PushConfig", self._control.push_config(change.push))
            if self._pushed is None:
                return  # transits come after the peers that they bring traffic from
        lacking = change.needs & {link.interface for link in change.configure if link.interface not in self._configured}
        if change.policy is not None and not lacking:
            applied = await self._call("SetNetworkConfig", self._control.set_network_config(change.policy))
            self.policy_applied = applied is not None

    async def xray(self, request: pb.PushConfigRequest) -> None:
        try:
            await self._control.push_config(request)
        except RpcFailed as failure:
            if failure.code is not grpc.StatusCode.UNIMPLEMENTED:
                self._note(XRAY_STEP, explain(failure))
                return
            self._xray = False
        except NodeFailure as failure:
            self._note(XRAY_STEP, failure)
        else:
            self._xray = True

    async def remove(self, removal: Remove) -> None:
        if removal.first is not None and not await self._configure(removal.first):
            return
        self._forgotten.add(removal.interface)  # it is, even if this fails (node-contract.md 4.13)
        if await self._call("RemoveInnerLink", self._control.remove_inner_link(removal.interface)) is not None:
            self._removed.add(removal.interface)

    async def _configure(self, config: pb.InnerLinkConfig) -> bool:
        try:
            await self._control.configure_inner_link(config, self._revision)
        except RpcFailed as failure:
            self._stale = self._stale or failure.code is grpc.StatusCode.FAILED_PRECONDITION
            self._note(f"ConfigureInnerLink of {config.interface}", explain(failure))
            return False
        except NodeFailure as failure:
            self._note(f"ConfigureInnerLink of {config.interface}", failure)
            return False
        return True

    async def _call(self, step: str, call: Awaitable[R]) -> R | None:
        try:
            return await call
        except RpcFailed as failure:
            self._note(step, explain(failure))
        except NodeFailure as failure:
            self._note(step, failure)
        return None

    def _note(self, step: str, failure: NodeFailure) -> None:
        if self.failure is None:
            self.failure, self.failed_at = failure, step
        if isinstance(failure, NodeUnreachable):
            raise failure
