"""An operation for tests: it keeps what it did in a directory, as a host would, and can be made to fail, hang and wait."""

from __future__ import annotations

import threading
from pathlib import Path

from coxswain.errors import CoxswainError, InvalidInput, NodeUnreachable
from coxswain.operations import Kind, OnFailure, Recovery, Step, Work

__all__ = ["Blocker", "Scripted", "touch_kind"]


class Blocker:
    """Blocks like a socket that nobody answers on, until it is closed; ``deaf``: not even then."""

    def __init__(self, *, deaf: bool = False) -> None:
        self.entered = threading.Event()
        self.closed = threading.Event()
        self._deaf = deaf

    def close(self) -> None:
        if not self._deaf:
            self.closed.set()

    def wait(self) -> None:
        self.entered.set()
        self.closed.wait(60)
        raise OSError("the connection was closed")


class Scripted:
    """What the steps of ``touch_kind`` should do, by step name: ``fail``, ``bug``, a ``Blocker``, or nothing."""

    def __init__(self) -> None:
        self.do: dict[str, object] = {}
        self.undo: dict[str, object] = {}
        self.calls: list[str] = []
        self.said = ""

    def act(self, table: dict[str, object], name: str, work: Work) -> None:
        what = table.get(name)
        if what == "fail":
            raise NodeUnreachable(f"{name}: connection refused", remedy="Plug it in.")
        if isinstance(what, CoxswainError):
            raise what
        if what == "bug":
            raise ZeroDivisionError("a bug")
        if isinstance(what, Blocker):
            work.hold(what).wait()


def touch_kind(
    directory: Path,
    script: Scripted,
    *,
    name: str = "test.touch",
    after_crash: Recovery = Recovery.RESUME,
    on_failure: OnFailure = OnFailure.KEEP,
    deadline_s: float = 30.0,
    light: bool = False,
    overtaken_by: tuple[str, ...] = (),
) -> Kind:
    """Makes the files ``params["names"]`` one after the other; ``secret`` among the names needs a password.

    ``deadline_s``: of those with which something is to happen; others have time, on a busy machine as well.
    """

    def step(file: str) -> Step:
        path = directory / file

        def do(work: Work) -> None:
            script.calls.append(f"do {file}")
            if file == "secret":
                work.say(f"the password is {work.secret('password')}")
            work.remember(existed=path.exists())
            path.touch()
            work.say(f"made {file}{script.said}")
            script.act(script.do, file, work)
            work.keep(last=file)

        def undo(work: Work) -> None:
            script.calls.append(f"undo {file}")
            script.act(script.undo, file, work)
            if not work.remembered.get("existed"):
                path.unlink(missing_ok=True)

        return Step(file, f"make {file}", do, undo, deadline_s if file in script.do else 30.0)

    def check(params):
        if not params.get("names"):
            raise InvalidInput("names: are missing")
        return dict(params)

    return Kind(
        name=name,
        steps=lambda params: [step(file) for file in params["names"]],
        check=check,
        target=lambda params, _data: ("directory", str(params.get("lock", ""))),
        locks=lambda params: (f"lock:{params['lock']}",) if params.get("lock") else (),
        after_crash=after_crash,
        on_failure=on_failure,
        light=light,
        overtaken_by=overtaken_by,
    )
