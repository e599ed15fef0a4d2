"""Random lives of a tree, against a model of each strategy that is written the other way round.

The model is told what is done to a child, and says which children have a new incarnation afterwards and which are gone.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from supervision_parts import Do, node, running, worker

from actors.supervision import Backoff, ChildSpec, ChildState, Harm, Intensity, Restart, Strategy, Supervisor, WhichChildren
from coxswain.errors import Unavailable
from tests.support import eventually

SPECS = (
    ("c0", Restart.PERMANENT, None),
    ("c1", Restart.TRANSIENT, None),
    ("c2", Restart.PERMANENT, Backoff(0.001, 0.005)),
    ("c3", Restart.TEMPORARY, None),
    ("c4", Restart.PERMANENT, None),
)


class Model:
    """Incarnation of each child, 0 for one that is gone for good."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.now = {name: 1 for name, _, _ in SPECS}
        self.restart = {name: restart for name, restart, _ in SPECS}

    def end(self, name: str, *, failed: bool, failed_starts: int = 0) -> None:
        kind = self.restart[name]
        if kind is Restart.TEMPORARY or (kind is Restart.TRANSIENT and not failed):
            self.now[name] = 0
            return
        for other in self.now:
            falls = {
                Strategy.ONE_FOR_ONE: other == name,
                Strategy.REST_FOR_ONE: other >= name,
                Strategy.ONE_FOR_ALL: True,
            }[self.strategy]
            if falls and self.now[other]:
                gone = self.restart[other] is Restart.TEMPORARY and other != name
                self.now[other] = 0 if gone else self.now[other] + 1
        self.now[name] += failed_starts  # nobody else came up in between: they stand on it, or do not fall with it


def lives(strategy: Strategy) -> type[RuleBasedStateMachine]:
    class Lives(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model(strategy)
            inner = tuple(worker(n, restart=r, backoff=b) for n, r, b in SPECS)
            kwargs = {"children": inner, "strategy": strategy, "intensity": Intensity(10_000, 60)}
            self._running = running(ChildSpec("s", Supervisor, kwargs), worker("bystander"))
            self.system = self._running.__enter__()

        def alive(self, index: int) -> str | None:
            names = [name for name, incarnation in self.model.now.items() if incarnation]
            return names[index % len(names)] if names else None

        @rule(index=st.integers(0, 99), how=st.sampled_from([Harm.RAISE, Harm.EXIT]))
        def crash(self, index: int, how: Harm) -> None:
            if (name := self.alive(index)) is not None:
                assert self.system.harm(name, how)
                self.model.end(name, failed=True)

        @rule(index=st.integers(0, 99))
        def vanish(self, index: int) -> None:
            if (name := self.alive(index)) is not None:
                actor = self.system.directory.find(name)
                assert self.system.harm(name, Harm.VANISH)
                actor.thread.join(30)
                self.system.watch.sweep()
                self.model.end(name, failed=True)

        @rule(index=st.integers(0, 99))
        def fail_asked(self, index: int) -> None:
            if (name := self.alive(index)) is not None:
                with pytest.raises(Unavailable):
                    self.system.ask(name, Do(lambda _: 1 / 0), deadline=10)
                self.model.end(name, failed=True)

        @rule(index=st.integers(0, 99))
        def end_in_good_order(self, index: int) -> None:
            if (name := self.alive(index)) is not None:
                assert self.system.tell(name, Do(lambda actor: actor.stop()))
                self.model.end(name, failed=False)

        @rule(index=st.integers(0, 99))
        def crash_and_fail_the_next_start(self, index: int) -> None:
            name = self.alive(index)
            if name is None or self.model.restart[name] is Restart.TEMPORARY:
                return
            self.system.fail_next_start(name)
            assert self.system.harm(name, Harm.RAISE)
            self.model.end(name, failed=True)
            if strategy is Strategy.ONE_FOR_ONE or (strategy is Strategy.REST_FOR_ONE):
                self.model.now[name] += 1
            else:  # those before it were up again, and fall once more
                for other in self.model.now:
                    if self.model.now[other] and other <= name:
                        self.model.now[other] += 1

        @invariant()
        def the_tree_is_what_the_model_says(self) -> None:
            eventually(lambda: self.actual() == self.model.now)
            self.system.ask("s", WhichChildren(), deadline=10)  # whatever was still to be handled has been
            assert self.actual() == self.model.now
            for name, incarnation in self.model.now.items():
                if incarnation:
                    assert self.system.ask(name, "hi", deadline=10) == ("hi", incarnation)
            assert self.system.ask("bystander", "hi", deadline=10) == ("hi", 1)

        def actual(self) -> dict[str, int]:
            gone = (ChildState.STOPPED, ChildState.FAILED)
            states = {child.id: child for child in node(self.system, "s").children}
            if any(c.state not in (*gone, ChildState.RUNNING) for c in states.values()):
                return {}
            return {name: 0 if child.state in gone else child.incarnation for name, child in states.items()}

        def teardown(self) -> None:
            self._running.__exit__(None, None, None)

    return Lives


@pytest.mark.parametrize("strategy", list(Strategy))
def test_random_lives(strategy):
    run_state_machine_as_test(
        lives(strategy),
        settings=settings(max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("strategy", list(Strategy))
def test_random_lives_for_longer(strategy):
    run_state_machine_as_test(
        lives(strategy),
        settings=settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)),
    )
