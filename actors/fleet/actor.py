"""The inventory and its intent: every change to nodes, devices, users and peers goes through this actor.

A change is one transaction: rows, bumped revisions and the audit record together, durable before anybody dials a node.
Then the links concerned are told that something changed; they read the intent late. What links report is kept in memory
for queries and written to the store in batches.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from actors.fleet import (
    accounts,
    bindings,
    bundles,
    doubt,
    drift,
    enrolment,
    exits,
    failover,
    health,
    intents,
    nodes,
    paths,
    peers,
    profiles,
    questions,
    refreshing,
    removed,
    reports,
    unfinished,
    waiting,
    wiring,
)
from actors.fleet.state import FleetState, Handler
from actors.node_link import link_name
from actors.supervision import Actor, Context
from coxswain.errors import StoreUnavailable
from coxswain.keyring import Keyring
from coxswain.messages.fleet import Sighting
from coxswain.messages.links import IntentChanged, ReportAgain
from coxswain.provisioning.offer import Settings
from coxswain.store import Store
from coxswain.store import fleet as rows

__all__ = ["Fleet"]

_FLUSH_S = 0.25
_REMIND_S = 10.0
"""A hint may be lost, with the mailbox of an actor that fell or because it was full."""

_REVIEW_S = 3.0
"""Costs nothing where no path has fallbacks, and no device is on its way."""

_CONCERNS = (
    nodes, accounts, removed, profiles, enrolment, bundles, refreshing, peers, paths, bindings, exits,
    wiring, intents, waiting, reports, drift,
    doubt, questions,
)  # fmt: skip
_CHANGES: dict[type, Handler] = {kind: handler for concern in _CONCERNS for kind, handler in concern.CHANGES.items()}
_QUESTIONS: dict[type, Handler] = {kind: handler for concern in _CONCERNS for kind, handler in concern.QUESTIONS.items()}


class _Flush:
    """To itself: write what links reported since the last time."""


class _Review:
    """To itself: look at the exits of paths, and at who is on the way from one path to another."""


class _Remind:
    """To itself: look for links that go by an old intent."""


class Fleet(Actor):
    """See the module. What it does is in the modules beside this one, one per concern; here is its life."""

    mailbox_capacity = 50_000

    def __init__(
        self,
        context: Context,
        *,
        store: Store,
        keyring: Keyring,
        settings: Settings,
        sightings: MutableMapping[str, Sighting] | None = None,
    ) -> None:
        super().__init__(context)
        self._fleet = FleetState(context, store, keyring, settings)
        if sightings is not None:
            self._fleet.sightings = sightings

    def started(self) -> None:
        fleet = self._fleet
        with fleet.store.read() as tx:
            fleet.nodes = {node.id: node for node in rows.list_nodes(tx, now=fleet.now())}
        bundles.note_offer(fleet)
        self.context.after(_FLUSH_S, _Flush())
        self.context.after(_REMIND_S, _Remind())
        self.context.after(_REVIEW_S, _Review())
        fleet.node_set_changed()  # nor may it have said that there are others, or looked at what links build on
        fleet.rewire_soon()
        for node_id in fleet.nodes:
            self.context.tell(link_name(node_id), ReportAgain())
            self.context.tell(link_name(node_id), IntentChanged())  # a predecessor may have fallen before it told them all
            refreshing.refresh(fleet, node_id)

    def stopping(self) -> None:
        self._flush()

    def receive(self, message: Any) -> Any:
        kind = type(message)
        if kind in _CHANGES:
            doubt.settle_doubt(self._fleet)
            return _CHANGES[kind](self._fleet, message)
        if kind in _QUESTIONS:
            return _QUESTIONS[kind](self._fleet, message)
        if kind is _Flush:
            self._flush()
            self.context.after(_FLUSH_S, message)
        elif kind is _Remind:
            intents.remind(self._fleet)
            health.review(self._fleet)
            self.context.after(_REMIND_S, message)
        elif kind is _Review:
            failover.review(self._fleet)
            unfinished.review(self._fleet)
            self.context.after(_REVIEW_S, message)
        return None

    def _flush(self) -> None:
        try:
            doubt.settle_doubt(self._fleet)
        except StoreUnavailable:
            return
        reports.flush(self._fleet)
