"""Whoever looks for what runs on one machine is given that, and not the whole fleet."""

from __future__ import annotations

import random
from pathlib import Path

from actors.fleet import Fleet
from actors.supervision import ChildSpec, System
from coxswain.clock import SystemClock
from coxswain.config.live import LiveConfig
from coxswain.keyring import KeySource, SealingSecret, open_keyring
from coxswain.messages.fleet import ListNodes
from coxswain.model import Node
from coxswain.store import open_store
from coxswain.store.fleet import insert_node


def test_nodes_of_one_machine(tmp_path: Path) -> None:
    store = open_store(tmp_path / "app.db")
    with store.write() as tx:
        for number, server in enumerate(("srv_a", "", "srv_b", "srv_a")):
            insert_node(tx, Node(f"nod_{number}", f"n{number}", control_addr=f"192.0.2.{number}:8444", server_id=server))
        keyring = open_keyring(tx, SealingSecret(KeySource.FILE, b"k" * 32))
    fleet = ChildSpec("fleet", Fleet, {"store": store, "keyring": keyring, "settings": LiveConfig.of_defaults()})
    system = System(children=(fleet,), clock=SystemClock(), rng=random.Random(1))
    system.start()
    try:
        assert system.wait_up(10)

        def found(query: ListNodes) -> list[str]:
            return [view.node.name for view in system.ask("fleet", query, deadline=30)]

        assert found(ListNodes(server_id="srv_a")) == ["n0", "n3"]
        assert found(ListNodes(server_id="srv_a", wanted="n3")) == ["n3"]
        assert found(ListNodes(server_id="srv_c")) == []
        assert found(ListNodes()) == ["n0", "n1", "n2", "n3"]
    finally:
        system.stop(10)
        store.close()
