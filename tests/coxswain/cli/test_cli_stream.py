"""Following the live stream from a command: over restarts of the daemon, without a gap and without a repeat."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from actors.supervision import Harm
from coxswain.cli.client import Client, RemoteError
from coxswain.cli.stream import Follower, follow
from coxswain.errors import DaemonNotRunning, Unavailable
from coxswain.messages.hub import Publish
from tests.fleet import Controller
from tests.support import eventually


@pytest.fixture(autouse=True)
def over() -> Iterator[threading.Event]:
    """Set when the test is over: who still follows then ends at the next break, instead of trying again for ever."""
    ended = threading.Event()
    yield ended
    ended.set()


def following(controller: Controller, over: threading.Event, **more: Any) -> Queue[dict[str, Any]]:
    came: Queue[dict[str, Any]] = Queue()
    lost: list[str] = []
    ready = threading.Event()

    def wait(_seconds: float) -> None:
        if over.wait(0.05):
            raise TimeoutError

    def run() -> None:
        client = Client(controller.home / "control.sock")
        with suppress(TimeoutError):
            for event in follow(client, lost=lost.append, wait=wait, **more):
                came.put(event)
                ready.set()

    threading.Thread(target=run, daemon=True).start()
    eventually(lambda: publish(controller, "tree.begin") and ready.wait(0.1))
    return came


def publish(controller: Controller, kind: str, **data: Any) -> bool:
    return bool(controller.system.tell("event_hub", Publish(kind, 1.0, data)))


def numbers(came: Queue[dict[str, Any]], count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        event = came.get(timeout=30)
        if "number" in event:
            found.append(event["number"])
    return found


def test_it_goes_on_where_it_was_after_the_loop_fell(controller: Controller, over: threading.Event) -> None:
    came = following(controller, over)
    for number in range(4):
        publish(controller, "tree.n", number=number)
        assert controller.system.harm("io_loop", Harm.RAISE, 0)
        eventually(lambda: controller.system.wait_up(1))
        publish(controller, "tree.n", number=100 + number)
    assert numbers(came, 8) == [0, 100, 1, 101, 2, 102, 3, 103]


def test_it_outlives_the_daemon_and_says_that_something_may_be_missing(tmp_path: Path, over: threading.Event) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    controller = Controller(state)
    controller.start()
    came = following(controller, over)
    publish(controller, "tree.n", number=1)
    assert numbers(came, 1) == [1]
    controller.stop()
    controller.start()
    try:
        publish(controller, "tree.n", number=2)
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1].get("number") != 2:
            seen.append(came.get(timeout=30))
        assert seen[0]["type"] == "dropped" and seen[0]["count"] is None
    finally:
        controller.stop()


def test_a_daemon_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(DaemonNotRunning):
        next(follow(Client(tmp_path / "control.sock")))


def test_a_class_that_there_is_not_is_an_error_at_once(controller: Controller) -> None:
    with pytest.raises(RemoteError, match="class: 'gossip' is none of"):
        next(follow(Client(controller.home / "control.sock"), classes="gossip"))


def test_whoever_draws_takes_what_came(controller: Controller) -> None:
    publish(controller, "tree.n", number=-7)
    follower = Follower(Client(controller.home / "control.sock"))
    seen: list[dict[str, Any]] = []

    def is_there() -> bool:
        seen.extend(follower.take())
        return any(event.get("number") == -7 for event in seen)

    eventually(is_there)
    follower.close()


def test_who_stops_drawing_leaves_nobody_who_tries_again_for_ever(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    follower = Follower(Client(tmp_path / "control.sock"))
    assert eventually(follower.take)[0]["type"] == "lost"
    follower.close()
    eventually(lambda: {t for t in threading.enumerate() if t.name == "events"} <= before)


def test_the_jitter_of_one_who_follows_is_its_own() -> None:
    """And not of the whole process, in which others count on theirs."""

    class Broken(Client):
        def lines(self, *_: object) -> Iterator[str]:
            yield from ("data: {}", "")
            raise Unavailable("it broke")

    def waits() -> list[float]:
        found: list[float] = []

        def wait(seconds: float) -> None:
            found.append(seconds)
            if len(found) == 5:
                raise TimeoutError

        with pytest.raises(TimeoutError):
            list(follow(Broken(Path()), wait=wait, rng=random.Random(7)))
        return found

    assert waits() == waits()


@pytest.fixture
def watching(controller: Controller) -> Iterator[subprocess.Popen[str]]:
    config = str(controller.home.parent / "cox.yaml")
    command = [sys.executable, "-m", "actors.main", "watch", "--json", "--new", "--class", "tree", "--config", config]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy())
    yield process
    process.kill()
    process.communicate()


def test_cox_watch_prints_each_event_when_it_comes(controller: Controller, watching: subprocess.Popen[str]) -> None:
    assert watching.stdout is not None
    lines: Queue[str] = Queue()
    threading.Thread(target=lambda: [lines.put(line) for line in watching.stdout or ()], daemon=True).start()
    eventually(lambda: publish(controller, "tree.n", number=1) and not lines.empty(), every=0.1)
    publish(controller, "node.changed", name="not asked for")
    publish(controller, "tree.n", number=2)
    events = [json.loads(lines.get(timeout=30))]
    while events[-1]["number"] != 2:
        events.append(json.loads(lines.get(timeout=30)))
    assert {event["type"] for event in events} == {"tree"}
    watching.terminate()
    assert watching.wait(30) != 0
