"""What a step sees of its operation (``coxswain.operations.Work``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from actors.operations.worker import Worker
from coxswain.errors import DeadlineExceeded
from coxswain.messages.audit import Caller
from coxswain.operations.kinds import Closeable, NeedsSecret, Params

__all__ = ["StepWork"]

T = TypeVar("T")
C = TypeVar("C", bound=Closeable)


class StepWork:
    """One step's view of its worker."""

    def __init__(self, worker: Worker, position: int) -> None:
        self._worker = worker
        self._position = position

    @property
    def id(self) -> str:
        return self._worker.journal.operation.id

    @property
    def params(self) -> Params:
        return self._worker.journal.operation.params

    @property
    def data(self) -> Mapping[str, Any]:
        return self._worker.journal.operation.data

    @property
    def remembered(self) -> Mapping[str, Any]:
        return self._worker.remembered(self._position)

    @property
    def caller(self) -> Caller:
        return self._worker.caller

    def keep(self, **values: Any) -> None:
        self._worker.journal.keeps(values)

    def remember(self, **values: Any) -> None:
        self._worker.journal.remembers(self._position, values)

    def secret(self, name: str) -> str:
        value = self._worker.secrets.get(name)
        if value is None:
            raise NeedsSecret(name)
        return value

    def say(self, line: str) -> None:
        self._worker.journal.says(self._position, line)

    def ask(self, actor: str, message: Any, *, deadline: float = 10.0) -> Any:
        return self._worker.ask(actor, message, deadline)

    def tell(self, actor: str, message: Any) -> None:
        self._worker.context.tell(actor, message)

    def change(self, actor: str, message: Any, *, deadline: float = 30.0) -> Any:
        return self._worker.change(actor, message, deadline)

    def hold(self, thing: C) -> C:
        return self._worker.hold(thing)

    def shared(self, name: str, make: Callable[[], C]) -> C:
        return self._worker.shared(name, make)

    def drop(self, name: str) -> None:
        self._worker.drop(name)

    def check(self) -> None:
        self._worker.check()

    def wait_for(self, look: Callable[[], T], what: str, *, timeout: float, every: float = 0.2) -> T:
        clock = self._worker.context.clock
        until = clock.monotonic() + timeout
        while True:
            self.check()
            found = look()
            if found:
                return found
            if clock.monotonic() >= until:
                raise DeadlineExceeded(f"{what}: not within {timeout:g} s")
            self._worker.wait(every)

    def now(self) -> float:
        return self._worker.context.clock.now()
