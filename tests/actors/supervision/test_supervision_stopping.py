"""The end of a tree: in order, in time, by signal."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from supervision_parts import Do, Journal, node, running, worker

from actors.supervision import (
    Backoff,
    ChildSpec,
    ChildState,
    DynamicSupervisor,
    Intensity,
    StartChild,
    Strategy,
    Supervisor,
    System,
    TerminateChild,
    WhichChildren,
)
from coxswain.clock import SystemClock
from coxswain.errors import Unavailable
from tests.support import eventually

from test_supervision_asking import in_thread  # isort: skip

HERE = Path(__file__).parent


def test_children_start_in_order_each_when_the_one_before_is_up_and_stop_in_reverse():
    journal, gate = Journal(), threading.Event()
    inner = (worker("b1", journal=journal, on_start=lambda _: gate.wait(30)), worker("b2", journal=journal))
    tree = (
        worker("a", journal=journal),
        ChildSpec("b", Supervisor, {"children": inner}),
        worker("c", journal=journal),
    )
    with running(*tree, up=False) as system:
        eventually(lambda: node(system, "b").children and node(system, "b1").state is ChildState.STARTING)
        assert [node(system, n).state.value for n in ("a", "b", "b2", "c")] == ["running", "starting", "stopped", "stopped"]
        assert not system.wait_up(0)
        gate.set()
        assert system.wait_up(10)
        assert journal["started"] == ["a", "b1", "b2", "c"]
        assert system.stop()
        assert journal["stopping"] == ["c", "b2", "b1", "a"]
        assert system.tree().state is ChildState.STOPPED
        assert system.stop(), "again is no harm"


def test_what_was_sent_before_the_stop_is_worked_on():
    done = []
    with running(worker("a")) as system:
        for n in range(1_000):
            system.tell("a", Do(lambda _, n=n: done.append(n)))
        assert system.stop()
        assert done == list(range(1_000))


def test_a_child_that_does_not_stop_is_fenced_off_and_the_others_stop_in_order(caplog):
    journal, gate = Journal(), threading.Event()
    tree = (
        worker("a", journal=journal),
        worker("slow", journal=journal, on_stop=lambda _: gate.wait(30), shutdown_s=0.1),
        worker("z", journal=journal),
    )
    with running(*tree) as system:
        system.stop(10)
        assert journal["stopping"] == ["z", "a"]
        assert "slow (incarnation 1, failure 1 in a row) did not stop within 0.1 s and was fenced off" in caplog.text
        gate.set()


def test_shutdown_time_zero_fences_off_at_once():
    gate = threading.Event()
    with running(worker("a", on_stop=lambda _: gate.wait(30), shutdown_s=0)) as system:
        assert system.stop(10)
        gate.set()


def test_a_stop_may_take_longer_than_a_hang():
    journal, gate = Journal(), threading.Event()
    with running(worker("a", journal=journal, on_stop=lambda _: gate.wait(30), hang_s=0.05, shutdown_s=10)) as system:
        stopper = threading.Thread(target=system.stop)
        stopper.start()
        eventually(lambda: node(system, "a").busy_with == "stop" and node(system, "a").busy_s > 0.2)
        actor = system.directory.find("a")
        system.watch.sweep()
        assert actor.context.is_current
        gate.set()
        stopper.join(30)
        assert journal["stopping"] == ["a"]


def test_the_whole_stop_has_a_deadline():
    gate, freed = threading.Event(), []

    def hold(actor):
        actor.context.on_void(lambda: freed.append(actor.context.name))

    tree = (worker("first", on_start=hold), worker("slow", on_start=hold, on_stop=lambda _: gate.wait(30), shutdown_s=30))
    with running(*tree) as system:
        assert not system.stop(0.1)
        assert system.failure == "did not stop within 0.1 s"
        assert freed == ["slow", "first"], "what was held is let go all the same"
        gate.set()


def test_a_supervisor_answers_while_a_child_takes_its_time():
    gate = threading.Event()
    slow = worker("slow", on_stop=lambda _: gate.wait(30))
    with running(ChildSpec("d", DynamicSupervisor, {"children": (slow,)})) as system:
        system.tell("d", TerminateChild("slow"))
        eventually(lambda: node(system, "slow").state is ChildState.STOPPING)
        system.ask("d", StartChild(worker("other")), deadline=30)
        assert system.ask("d", WhichChildren(), deadline=30)[0].state is ChildState.STOPPING
        assert system.ask("other", "hi", deadline=30) == ("hi", 1)
        gate.set()


def test_a_stop_in_the_middle_of_a_start():
    gate = threading.Event()
    with running(worker("a", on_start=lambda _: gate.wait(30)), worker("b"), up=False) as system:
        eventually(lambda: node(system, "a").state is ChildState.STARTING)
        stopper = threading.Thread(target=system.stop)
        stopper.start()
        eventually(lambda: node(system, "a").state is ChildState.STOPPING)
        gate.set()
        stopper.join(30)
        assert system.failure is None
        assert system.directory._incarnations["b"] == 0


def test_a_system_that_never_started_stops():
    system = System(children=(), clock=SystemClock(), rng=random.Random(1))
    assert system.stop()
    with pytest.raises(RuntimeError, match="started once"):
        system.start()


def test_who_waits_for_a_name_is_told_when_the_system_ends():
    with running(worker("a")) as system:
        answer = in_thread(lambda: system.ask("nobody", "hi", deadline=3_600))
        system.stop()
        with pytest.raises(Unavailable, match="the system has ended"):
            answer.result(30)


def test_the_last_events_are_seen():
    seen = []
    with running(worker("a"), worker("b")) as system:
        system.on_event(lambda event, name, _reason: seen.append((event.value, name)))
        system.stop()
        assert seen == [("stopped", "b"), ("stopped", "a")]


def test_rest_for_one_waits_for_a_backoff():
    journal = Journal()

    def fail_twice(actor):
        if actor.context.incarnation in (2, 3):
            raise ValueError("not yet")

    inner = (
        worker("first", journal=journal),
        worker("base", journal=journal, on_start=fail_twice, backoff=Backoff(0.01, 0.05)),
        worker("above", journal=journal),
    )
    branch = ChildSpec("branch", Supervisor, {"children": inner, "strategy": Strategy.REST_FOR_ONE})
    with running(branch) as system:
        journal.clear()
        system.harm("base", "raise")
        eventually(lambda: journal["started"] == ["base", "above"])
        assert journal["stopping"] == ["above"]
        assert system.ask("base", "hi", deadline=30) == ("hi", 4)
        assert system.ask("above", "hi", deadline=30) == ("hi", 2)
        assert system.ask("first", "hi", deadline=30) == ("hi", 1)


def test_a_child_that_fails_when_it_is_to_be_stopped_anyway_is_no_second_failure():
    gate = threading.Event()
    slow = worker("c", on_stop=lambda actor: actor.context.incarnation == 1 and gate.wait(30))
    kwargs = {"children": (worker("a"), worker("b"), slow), "strategy": Strategy.ONE_FOR_ALL, "intensity": Intensity(1, 60)}
    with running(ChildSpec("branch", Supervisor, kwargs)) as system:
        system.harm("a", "raise")
        eventually(lambda: node(system, "c").state is ChildState.STOPPING)
        system.harm("b", "raise")  # while it waits for its turn to be stopped
        eventually(lambda: node(system, "b").state is ChildState.RESTARTING)
        gate.set()
        assert [system.ask(name, "hi", deadline=10)[1] for name in ("a", "b", "c")] == [2, 2, 2]
        assert node(system, "branch").incarnation == 1


# -- the process

PROGRAM = """
import random, sys, time
from supervision_parts import Worker, worker
from actors.supervision import Intensity, System
from coxswain.clock import SystemClock
mode = sys.argv[1]
def say(what): print(what, flush=True)
def fail(_): raise ValueError("no luck")
stop = {"slow": lambda _: (say("stopping b"), time.sleep(60))}.get(mode)
tree = [worker("a", on_stop=lambda _: say("stopping a")), worker("b", on_stop=stop, shutdown_s=60)]
if mode == "rests":
    Worker.rests_after_s = 0.01
if mode == "fail":
    tree.append(worker("c", on_start=fail))
system = System(children=tree, clock=SystemClock(), rng=random.Random(1), intensity=Intensity(2, 60), shutdown_s=60)
system.on_event(lambda event, name, _: say(f"{event} {name}"))
sys.exit(system.run())
"""


@pytest.fixture
def process():
    started = []

    def start(mode):
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[2])])}
        popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        started.append(popen)
        return popen

    yield start
    for popen in started:
        popen.kill()
        popen.communicate()


def read_until(popen, wanted):
    for line in popen.stdout:
        if line.strip() == wanted:
            return
    raise AssertionError(f"it ended without {wanted!r}: {popen.stderr.read()}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(process, number):
    popen = process("plain")
    read_until(popen, "started b")
    popen.send_signal(number)
    out, _err = popen.communicate(timeout=60)
    assert "stopping a" in out
    assert popen.returncode == 0


def test_the_second_signal_ends_it_at_once(process):
    popen = process("slow")
    read_until(popen, "started b")
    popen.send_signal(signal.SIGTERM)
    read_until(popen, "stopping b")
    popen.send_signal(signal.SIGTERM)
    _out, err = popen.communicate(timeout=60)
    assert popen.returncode == 128 + signal.SIGTERM
    assert "second signal: leaving at once" in err


def test_a_root_that_gives_up_is_a_failure_of_the_process(process):
    popen = process("fail")
    out, err = popen.communicate(timeout=60)
    assert popen.returncode == 1
    assert "stopping a" in out
    assert "more than 2 restarts" in err


def test_sigusr1_shows_every_thread_and_goes_on(process):
    popen = process("plain")
    read_until(popen, "started b")
    popen.send_signal(signal.SIGUSR1)
    seen = ""
    for line in popen.stderr:
        seen += line
        if "3 threads: a, b, root" in line:
            break
    assert "root" in seen
    popen.send_signal(signal.SIGTERM)
    popen.communicate(timeout=60)
    assert popen.returncode == 0


def test_sigusr1_names_who_rests(process):
    popen = process("rests")
    read_until(popen, "started b")
    seen = threading.Event()

    def ask():
        while not seen.wait(0.1):
            popen.send_signal(signal.SIGUSR1)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert any(line == "--- 2 actors at rest, without a thread: a, b\n" for line in popen.stderr)
    finally:
        seen.set()
        asking.join()


def test_the_example_of_the_documentation_runs():
    text = (HERE.parents[2] / "docs/supervision.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    process = subprocess.Popen(
        [sys.executable, "-c", example], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE.parents[2]
    )
    assert process.stdout is not None
    lines = sorted(process.stdout.readline() for _ in range(2))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert lines == ["counted to 1\n", "counted to 2\n"], err
    assert out.splitlines()[-1].startswith("stopped at ")
    assert (process.returncode, err) == (0, "")
