"""``configuration`` under its supervisor: SIGHUP, a door's question, a bad file, and a crash in between."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.audit_reader import AuditReader
from actors.audit_writer import AuditWriter
from actors.configuration import Configuration
from actors.event_hub import EventHub
from actors.reconcile_clock import ReconcileClock
from actors.supervision import ChildSpec, System
from actors.supervision.signals import Harm
from coxswain.audit.settings import AuditPaths
from coxswain.clock import SystemClock
from coxswain.config import load
from coxswain.config.live import LiveConfig
from coxswain.errors import InvalidInput
from coxswain.live.ring import EventRing
from coxswain.messages.audit import Caller, ListAudit
from coxswain.messages.configuration import ConfigView, DescribeConfig, HungUp, ReloadConfig
from coxswain.messages.hub import EventsAfter, Publish
from coxswain.store import Store
from tests.support import eventually

P = "posture: personal\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cox.yaml"
    path.write_text(P)
    path.chmod(0o600)
    return path


@pytest.fixture
def live(path: Path) -> LiveConfig:
    return LiveConfig(load(path, {}), lambda p: load(p, {}))


@pytest.fixture
def system(store: Store, live: LiveConfig, tmp_path: Path) -> Iterator[System]:
    level = logging.getLogger().level
    system = System(
        children=(
            ChildSpec("event_hub", EventHub, {"store": store, "ring": EventRing()}),
            ChildSpec("audit_writer", AuditWriter, {"store": store, "paths": AuditPaths.in_state(tmp_path)}),
            ChildSpec("configuration", Configuration, {"settings": live, "store": store}),
            ChildSpec("reconcile_clock", ReconcileClock, {"interval_s": lambda: live["fleet.reconcile_interval"]}),
            ChildSpec("audit_reader", AuditReader, {"store": store, "paths": AuditPaths.in_state(tmp_path)}),
        ),
        clock=SystemClock(),
        rng=random.Random(1),
        allow_chaos=True,
    )
    system.start()
    assert system.wait_up(10)
    yield system
    system.stop(10)
    logging.getLogger().setLevel(level)


def ask(system: System, message: Any) -> Any:
    return system.ask("configuration", message, deadline=10)


def records(system: System) -> list[Any]:
    return [entry for _, entry in system.ask("audit_reader", ListAudit(), deadline=10)]


def test_a_hangup_takes_over_what_can_be_and_is_audited(system: System, path: Path, live: LiveConfig) -> None:
    path.write_text(P + "log: {level: error}\nretention: {audit_days: 3}\nadmin: {password: hunter2}\n")
    system.tell("configuration", HungUp())
    entry = eventually(lambda: (found := records(system)) and found[0])
    assert (entry.actor, entry.actor_kind, entry.action, entry.result) == ("SIGHUP", "system", "config.reload", "ok")
    assert entry.detail == '{"pending":["admin.password"],"taken":{"log.level":"error","retention.audit_days":3}}'
    assert logging.getLogger().level == logging.ERROR and live["retention.audit_days"] == 3
    told = published(system)
    assert [e.kind for e in told] == ["config.reloaded"] and "hunter2" not in repr(told)


def published(system: System) -> list[Publish]:
    found = system.ask("event_hub", EventsAfter(0), deadline=10)
    return [event.event for event in found.events if event.event_class == "config"]


def test_a_bad_file_is_refused_told_and_audited(system: System, path: Path, live: LiveConfig) -> None:
    path.write_text(P + "log: {level: loud}\n")
    with pytest.raises(InvalidInput, match="'loud' is not accepted"):
        ask(system, ReloadConfig(Caller("root", "cli")))
    system.tell("configuration", HungUp())
    found = eventually(lambda: (found := records(system)) and len(found) == 2 and found)
    assert {entry.result for entry in found} == {"error"} and "loud" in found[0].error
    view: ConfigView = ask(system, DescribeConfig())
    assert "loud" in view.problem and view.values["log.level"] == ("info", "default")
    assert live["log.level"] == "info"
    assert [e.kind for e in published(system)] == ["config.refused"] * 2


def test_what_was_taken_over_outlives_a_crash_of_the_actor(system: System, path: Path) -> None:
    path.write_text(P + "retention: {metrics_days: 11}\n")
    ask(system, ReloadConfig(Caller("root", "cli")))
    system.harm("configuration", Harm.RAISE)
    eventually(lambda: system.tree().children[2].restarts == 1 and system.tree().children[2].state.value == "running")
    view: ConfigView = ask(system, DescribeConfig())
    assert view.values["retention.metrics_days"] == (11, "line 2")
    assert view.difference.taken == () and view.problem == ""
