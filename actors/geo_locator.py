"""``geo_locator``: the GeoIP database. It is opened again when its file changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.supervision import Actor, Context
from coxswain.geoip import GeoDatabase, credit_of
from coxswain.messages.geo import GeoInfo, GetGeoInfo, Locate, LookAgain
from coxswain.messages.hub import Publish

__all__ = ["GeoLocator"]

_REFRESH_S = 30.0


class _Refresh:
    """To itself: look whether the file is another one."""


class GeoLocator(Actor):
    """Nothing here has to outlive it; the file is read again.

    Args:
        context: its place in the system.
        files: where a database may be, the preferred one first.
        refresh_s: seconds between two looks at the files.
    """

    def __init__(self, context: Context, *, files: Sequence[Path], refresh_s: float = _REFRESH_S) -> None:
        super().__init__(context)
        self._database = GeoDatabase(files)
        self._refresh_s = refresh_s

    def started(self) -> None:
        self._database.refresh()
        self.context.after(self._refresh_s, _Refresh())

    def receive(self, message: Any) -> Any:
        match message:
            case Locate(hosts):
                found = {host: self._database.locate(host) for host in hosts}
                return {host: place for host, place in found.items() if place is not None}
            case GetGeoInfo():
                return self._info()
            case LookAgain():
                self._look()
                return self._info()
            case _Refresh():
                self._look()
                self.context.after(self._refresh_s, message)
        return None

    def _look(self) -> None:
        if self._database.refresh():
            self.context.tell("event_hub", Publish("inventory.places", self.context.clock.now(), {}))

    def _info(self) -> GeoInfo:
        source, file = self._database.source, self._database.file
        credit = credit_of(source)
        text, url = (credit.text, credit.url) if credit else ("", "")
        return GeoInfo(source, text, url, str(file or ""))

    def stopping(self) -> None:
        self._database.close()
