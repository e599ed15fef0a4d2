"""Messages to ``configuration``, which holds what the daemon's configuration says now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coxswain.config.live import Reloaded
from coxswain.messages.audit import Caller

__all__ = ["ConfigView", "DescribeConfig", "HungUp", "ReloadConfig", "SetInterval"]


@dataclass(frozen=True, slots=True)
class ReloadConfig:
    """Asked by doors: read the file again. Reply: ``Committed[Reloaded]``.

    Raises:
        InvalidInput, LoosePermissions: the file is not sound. Nothing has changed; the audit log says that it was tried.
    """

    caller: Caller


@dataclass(frozen=True, slots=True)
class HungUp:
    """Told by the main thread at SIGHUP: the same, with nobody to answer."""


@dataclass(frozen=True, slots=True)
class DescribeConfig:
    """Asked by doors. Reply: ``ConfigView``."""


@dataclass(frozen=True, slots=True)
class ConfigView:
    """What is in force, as it may be shown.

    Attributes:
        path: of the file.
        values: by key: value and where it comes from.
        difference: what a reload would do now.
        problem: why it would do nothing; empty: the file is sound.
        warnings: see ``Config.warnings``.
        loaded_at: epoch seconds; when the values in force were read.
    """

    path: str
    values: dict[str, tuple[Any, str]]
    difference: Reloaded
    problem: str
    warnings: tuple[str, ...]
    loaded_at: float


@dataclass(frozen=True, slots=True)
class SetInterval:
    """Told to ``reconcile_clock``: from now on, look at each node every so many seconds."""

    seconds: float
