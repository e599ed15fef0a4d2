"""``configuration``: takes over, at SIGHUP or when asked, what of the file can be taken over by a running daemon.

The values themselves live in a ``LiveConfig`` that outlives this actor; whoever needs one reads it there when it is needed.
Only what somebody holds for itself has to be told: the log level, and the interval of the reconcile clock.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from actors.supervision import Actor, Context
from coxswain.audit import record
from coxswain.config import KEYS
from coxswain.config.live import Change, LiveConfig, Reloaded
from coxswain.errors import CoxswainError
from coxswain.messages.audit import Caller, Committed, OutboxGrew
from coxswain.messages.configuration import ConfigView, DescribeConfig, HungUp, ReloadConfig, SetInterval
from coxswain.messages.hub import Publish
from coxswain.store import Durability, Store

__all__ = ["LEVELS", "Configuration"]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


class Configuration(Actor):
    """A file that is not sound changes nothing, and says so in the log, the audit log and the live stream."""

    def __init__(self, context: Context, *, settings: LiveConfig, store: Store) -> None:
        super().__init__(context)
        self._settings = settings
        self._store = store
        self._loaded_at = context.clock.now()

    def receive(self, message: Any) -> Any:
        match message:
            case ReloadConfig(caller):
                return self._reload(caller)
            case HungUp():
                with suppress(CoxswainError):  # it is in the log
                    self._reload(Caller("SIGHUP", "system"))
            case DescribeConfig():
                return self._describe()
        return None

    def _reload(self, caller: Caller) -> Committed[Reloaded]:
        try:
            outcome = self._settings.reload()
        except CoxswainError as error:
            self.context.log.error("the configuration stays as it is, because the file is not sound: %s", error)  # noqa: TRY400
            self._record(caller, {}, error=str(error))
            raise
        self._loaded_at = self.context.clock.now()
        for change in outcome.taken:
            self._take(change)
        for change in outcome.pending:
            self.context.log.warning("configuration: %s", _pending_words(change))
        if not outcome.taken and not outcome.pending:
            self.context.log.info("configuration: read again; nothing has changed")
        detail = {
            "taken": {change.name: change.in_file for change in outcome.taken},
            "pending": [change.name for change in outcome.pending],
        }
        return Committed(outcome, self._record(caller, detail))

    def _take(self, change: Change) -> None:
        self.context.log.info("configuration: %s is %r now; it was %r", change.name, change.in_file, change.in_force)
        match change.name:
            case "log.level":
                logging.getLogger().setLevel(LEVELS[self._settings["log.level"]])
            case "fleet.reconcile_interval":
                self.context.tell("reconcile_clock", SetInterval(float(self._settings["fleet.reconcile_interval"])))
            case _:
                pass  # read by its user whenever it is needed

    def _record(self, caller: Caller, detail: dict[str, Any], error: str = "") -> int:
        now = self.context.clock.now()
        target = ("config", str(self._settings.config.path))
        with self._store.write(Durability.ACKNOWLEDGED) as tx:
            outbox_id = record(tx, caller, "config.reload", target, detail, now=now, error=error)
        self.context.tell("audit_writer", OutboxGrew())
        self.context.tell(
            "event_hub", Publish("config.refused" if error else "config.reloaded", now, detail | {"error": error})
        )
        return outbox_id

    def _describe(self) -> ConfigView:
        config = self._settings.config
        difference, problem = self._settings.compare()
        return ConfigView(
            path=str(config.path),
            values={key.name: (config.shown_value(key.name), config.origin(key.name).where) for key in KEYS},
            difference=difference,
            problem=problem,
            warnings=tuple(config.warnings()),
            loaded_at=self._loaded_at,
        )


def _pending_words(change: Change) -> str:
    return f"{change.name} is {change.in_file!r} in the file ({change.where}), and {change.in_force!r} until the next start"
