"""A running daemon's configuration: all of a sound file that can be taken over, nothing of one that is not sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from coxswain.config import KEYS, ConfigProblems, load
from coxswain.config.live import LiveConfig

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


def test_live_keys_are_taken_over_and_the_others_wait(path: Path, live: LiveConfig) -> None:
    path.write_text(P + "log: {level: debug}\nretention: {audit_days: 90}\nstate_dir: elsewhere\n")
    outcome = live.reload()
    assert [(c.name, c.in_force, c.in_file, c.where) for c in outcome.taken] == [
        ("log.level", "info", "debug", "line 2"),
        ("retention.audit_days", 30, 90, "line 3"),
    ]
    assert [c.name for c in outcome.pending] == ["state_dir"]
    assert (live["log.level"], live["retention.audit_days"]) == ("debug", 90)
    assert live.config.state_dir.name == "state", "the state does not move under a running daemon"
    assert live.config.origin("log.level").where == "line 2"
    assert live.config.origin("state_dir").kind == "default"
    again = live.reload()
    assert again.taken == () and again.pending == outcome.pending, "what waits is told every time"


def test_a_changed_posture_takes_only_its_live_presets(path: Path, live: LiveConfig) -> None:
    path.write_text("posture: enterprise\n")
    outcome = live.reload()
    assert {c.name for c in outcome.taken} == {"retention.audit_days", "retention.metrics_days"}
    assert {"posture", "protocols.xray", "relay.remote"} <= {c.name for c in outcome.pending}
    assert (live["posture"], live["retention.audit_days"]) == ("personal", 365)


@pytest.mark.parametrize("bad", ["log: {level: loud}\nretention: {audit_days: 1}\n", "log: [", "lgo: {level: debug}\n"])
def test_a_bad_file_changes_nothing(path: Path, live: LiveConfig, bad: str) -> None:
    before = live.config
    path.write_text(P + bad)
    with pytest.raises(Exception, match=r"cox\.yaml"):
        live.reload()
    assert live.config is before
    difference, problem = live.compare()
    assert difference.taken == () and difference.pending == () and "cox.yaml" in problem


def test_a_file_that_is_gone_changes_nothing(path: Path, live: LiveConfig) -> None:
    path.unlink()
    with pytest.raises(Exception, match="cannot be read"):
        live.reload()
    assert live["log.level"] == "info"


def test_a_look_changes_nothing(path: Path, live: LiveConfig) -> None:
    path.write_text(P + "log: {level: debug}\n")
    difference, problem = live.compare()
    assert [c.name for c in difference.taken] == ["log.level"] and problem == ""
    assert live["log.level"] == "info"


def test_no_secret_is_in_a_change(path: Path, live: LiveConfig) -> None:
    path.write_text(P + "admin: {password: hunter2}\ndatabase: {dsn: 'postgres://u:hunter2@h/x'}\n")
    outcome = live.reload()
    assert {c.name for c in outcome.pending} == {"admin.password", "database.dsn"}
    assert "hunter2" not in repr(outcome)
    path.write_text(P + "admin: {password: 1}\n")
    with pytest.raises(ConfigProblems):
        live.reload()


def test_no_live_key_is_one_that_something_was_built_with() -> None:
    assert {key.name for key in KEYS if key.live} >= {"log.level", "fleet.reconcile_interval", "retention.audit_days"}
    for name in ("state_dir", "database.dsn", "posture", "control.socket", "ui.listen", "ca.key_source"):
        assert not next(key for key in KEYS if key.name == name).live
