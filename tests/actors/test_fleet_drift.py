"""What is recorded of a node that was not what it should be."""

from __future__ import annotations

import contextlib
import json
import logging
import pathlib
from types import SimpleNamespace
from typing import Any

from actors.fleet.drift import QUESTIONS
from coxswain.messages.fleet import NodeDrifted
from coxswain.model import Node
from coxswain.store import open_store


def test_the_same_of_one_node_is_recorded_once_in_ten_minutes(tmp_path: pathlib.Path) -> None:
    """Two controllers on one node find the same at every look."""
    time = 0.0
    with contextlib.closing(open_store(tmp_path / "app.db")) as store:
        clock = SimpleNamespace(monotonic=lambda: time)
        context = SimpleNamespace(clock=clock, log=logging.getLogger("test"), tell=lambda *_: None)
        nodes = {name: Node(name, name) for name in ("a", "b")}
        fleet: Any = SimpleNamespace(store=store, context=context, nodes=nodes, drifted={}, now=lambda: time)

        def found(node: str, *kinds: str) -> None:
            QUESTIONS[NodeDrifted](fleet, NodeDrifted(node, kinds, frozenset(kinds)))

        def recorded() -> list[list[str]]:
            with store.read() as tx:
                rows = tx.execute("SELECT detail FROM audit_outbox WHERE action = 'node.heal' ORDER BY outbox_id")
            return [json.loads(row[0])["found"] for row in rows]

        found("a", "peers")
        time = 45.0
        found("a", "peers")
        found("b", "peers")
        found("gone", "peers")
        assert recorded() == [["peers"], ["peers"]]
        found("a", "policy", "peers")
        found("a", "policy")
        assert recorded()[2:] == [["policy", "peers"]]
        time = 600.0
        found("a", "policy")
        assert recorded()[3:] == [["policy"]]
