"""The configuration of a running daemon: what is in force, what the file says since, and taking over what can be."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coxswain.config import KEYS, Config, check, load
from coxswain.errors import CoxswainError

__all__ = ["Change", "LiveConfig", "Reloaded"]


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose value in the file is another one than that in force. Values are fit to be shown."""

    name: str
    in_force: Any
    in_file: Any
    where: str


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did: ``taken`` counts from now on, ``pending`` waits for the next start."""

    taken: tuple[Change, ...]
    pending: tuple[Change, ...]


class LiveConfig:
    """Thread-safe. ``live["retention.audit_days"]`` is the value in force *now*: ask again each time it is needed.

    Args:
        config: what the daemon was started with.
        read: reads it again; raises what ``coxswain.config.load`` raises.
    """

    def __init__(self, config: Config, read: Callable[[Path], Config] = load) -> None:
        self._config = config
        self._read = read
        self._lock = threading.Lock()

    @staticmethod
    def of_defaults(path: Path = Path("/nonexistent/cox.yaml")) -> LiveConfig:
        """Everything as the personal preset has it, from no file; for parts that are run without one."""
        return LiveConfig(check(b"posture: personal\n", path, {}))

    def __getitem__(self, name: str) -> Any:
        return self._config[name]

    @property
    def config(self) -> Config:
        """The values in force, all of one moment."""
        return self._config

    def reload(self) -> Reloaded:
        """Reads the file again and takes over the keys that are ``live``; all of them, or, if anything is wrong, none.

        Raises:
            CoxswainError: the file is not sound; nothing has changed.
        """
        with self._lock:
            found = self._read(self._config.path)
            taken, pending = _differences(self._config, found)
            values = {**self._config.values, **{change.name: found[change.name] for change in taken}}
            live = {key.name for key in KEYS if key.live}
            origins = {name: (found if name in live else self._config).origin(name) for name in values}
            self._config = dataclasses.replace(self._config, values=values, origins=origins)
            return Reloaded(taken, pending)

    def compare(self) -> tuple[Reloaded, str]:
        """What a reload would do now, and the problem that it would meet (empty: none)."""
        try:
            found = self._read(self._config.path)
        except CoxswainError as error:
            return Reloaded((), ()), str(error)
        return Reloaded(*_differences(self._config, found)), ""


def _differences(in_force: Config, found: Config) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """Those that can be taken over, and those that cannot."""
    taken: list[Change] = []
    pending: list[Change] = []
    for key in KEYS:
        if in_force[key.name] == found[key.name]:
            continue
        shown = in_force.shown_value(key.name), found.shown_value(key.name)
        change = Change(key.name, *shown, found.origin(key.name).where)
        (taken if key.live else pending).append(change)
    return tuple(taken), tuple(pending)
