"""One sweep: what happened since the last one is judged, a slice at a time.

Only devices with new events are looked at; what they did in the window is read for many of them at once, and what was before
comes from their histories. A slice and the note that it was done are one transaction, so a crash judges a slice again, and
finds nothing new in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.alerts.book import AlertBook
from actors.supervision import Context
from coxswain.alerts.claim_rules import link_reused
from coxswain.alerts.device_case import DeviceCase
from coxswain.alerts.device_rules import evaluate
from coxswain.alerts.estate_rules import audit_broken, devices_expiring, dropped, exits, expiring, storage_low, strangers
from coxswain.alerts.history import Event, History, Place
from coxswain.alerts.login_rules import judge_log
from coxswain.alerts.model import Finding
from coxswain.alerts.settings import RuleSettings
from coxswain.clock import to_micros
from coxswain.losses import Losses
from coxswain.messages.audit import DescribeAudit
from coxswain.messages.exits import ListExitTrouble
from coxswain.messages.geo import Locate
from coxswain.store import Store, Tx
from coxswain.store import alert_reads as reads
from coxswain.store import alerts as rows

__all__ = ["Sweeper"]

_ASK_S = 5.0
_DEVICES = 50
"""In one slice: some ten milliseconds, with ten sessions each."""

_EVENTS = 20_000
_SLICE_US = 300 * 1_000_000
_LATER_S = 300.0
_SEEN = "seen"
_ABSORBED = "absorbed"


class Sweeper:
    """Remembers how far it has come; all of it can be found out again.

    Args:
        context: of ``alert_engine``.
        store: what is judged.
        book: where findings go.
        state_dir: whose disk must not be full; None: not looked at.
        losses: what was dropped on its way.
    """

    def __init__(self, context: Context, store: Store, book: AlertBook, state_dir: Path | None, losses: Losses) -> None:
        self._context = context
        self._store = store
        self._book = book
        self._state_dir = state_dir
        self._losses = losses
        self._progress: dict[str, int] | None = None
        self._again: set[str] = set()

    def absorb(self, settings: RuleSettings) -> Iterator[None]:
        """Puts what left the window into histories."""
        now = self._context.clock.now()
        until = to_micros(now - settings.window_s)
        at = self._come(_ABSORBED, 0)
        while at < until:
            with self._store.read() as tx:
                first = reads.first_event(tx, at)
                if first is None or first >= until:
                    break
                end = min(until, first + _SLICE_US)
                events = reads.events_between(tx, first, end)
                known = reads.histories(tx, list(events))
            places = self._places(events.values())
            for device_id, part in events.items():
                known.setdefault(device_id, History()).absorb(part, places)
            self._note(_ABSORBED, end, also=lambda tx, known=known: reads.save_histories(tx, known, now))  # type: ignore[misc]
            at = end
            yield
        if until > self._come(_ABSORBED, 0):
            self._note(_ABSORBED, until)
        yield

    def devices(self, settings: RuleSettings) -> Iterator[None]:
        """The rules about devices, for each that did something since the last sweep."""
        now = self._context.clock.now()
        # Numbers of events say roughly when they came. After a start, what was judged last is judged once more.
        seen = self._come(_SEEN, to_micros(now - settings.window_s))
        chosen, self._again = self._again, set()
        with self._store.read() as tx:
            chosen |= reads.lingering(tx)
        while True:
            with self._store.read() as tx:
                newest, devices = reads.touched(tx, seen, _EVENTS)
            chosen |= devices
            if newest == seen:
                break
            seen = newest
            yield
        judged = sorted(chosen)
        for start in range(0, len(judged), _DEVICES):
            self._judge(judged[start : start + _DEVICES], now, settings)
            yield
        if seen != self._come(_SEEN, 0):
            self._note(_SEEN, seen)

    def logins(self, settings: RuleSettings) -> None:
        now = self._context.clock.now()
        with self._store.read() as tx:
            facts = reads.audit_facts(tx, now - settings.window_s, 0)
        self._book.apply(judge_log(facts, settings))

    def claims(self, settings: RuleSettings) -> None:
        with self._store.read() as tx:
            facts = reads.claim_facts(tx, self._context.clock.now() - settings.window_s)
        self._book.apply(link_reused(facts, settings))

    def strangers(self, settings: RuleSettings) -> None:
        now = self._context.clock.now()
        known = self._book.open_keys(("unknown_peer",))
        with self._store.read() as tx:
            found = reads.strangers(tx)
            if known:
                found += reads.gone_strangers(tx, now - settings.unknown_gone_s)
        self._condition(("unknown_peer",), strangers(found, now, settings, known=known), settings)

    def expiring(self, settings: RuleSettings) -> None:
        now = self._context.clock.now()
        with self._store.read() as tx:
            found = reads.expirings(tx, now, now + settings.expiry_s)
            devices = reads.device_certificates(tx, now - settings.device_expiry_s, now + settings.device_expiry_s)
        ends = [*expiring(found, now, settings), *devices_expiring(devices, now, settings)]
        self._condition(("certificate_expiring", "token_expiring"), ends, settings)

    def audit(self, settings: RuleSettings) -> None:
        state = self._context.ask("audit_writer", DescribeAudit(), deadline=_ASK_S)
        self._condition(("audit_broken",), audit_broken(state.findings, self._context.clock.now()), settings)

    def exits(self, settings: RuleSettings) -> None:
        found = self._context.ask("fleet", ListExitTrouble(), deadline=_ASK_S)
        self._condition(("exit_failover",), exits(found, self._context.clock.now()), settings)

    def drops(self, settings: RuleSettings) -> None:
        found = dropped(self._losses.within(settings.dropped_window_s), settings)
        self._book.apply([finding for finding in found if settings.lets_pass(finding)])

    def storage(self, settings: RuleSettings) -> None:
        if self._state_dir is None:
            return
        disk = os.statvfs(self._state_dir)
        free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        file = self._state_dir / "app.db"
        size = file.stat().st_size if self._store.kind == "sqlite" and file.exists() else 0
        now = self._context.clock.now()
        was_low = bool(self._book.open_keys(("storage_low",)))
        self._condition(("storage_low",), storage_low(free, total, size, now, settings, was_low=was_low), settings)

    # -- inside

    def _judge(self, device_ids: Sequence[str], now: float, settings: RuleSettings) -> None:
        with self._store.read() as tx:
            events = reads.events_of(tx, device_ids, now - settings.window_s)
            still_open = reads.open_stays(tx, device_ids)
            known = reads.histories(tx, device_ids)
            states = reads.statuses(tx, device_ids)
            joined = reads.joined(tx, device_ids, now - settings.window_s)
            others = {device_id: reads.siblings(tx, device_id) for device_id in joined}
            near = sorted({other for found in others.values() for other in found})
            was: dict[str, History] = {}
            did: dict[str, list[Event]] = {}
            if near:
                was, did = reads.histories(tx, near), reads.events_of(tx, near, now - settings.window_s)
            handled = rows.handled(tx, [f"impossible_travel:{device_id}" for device_id in device_ids])
        places = self._places([*events.values(), *did.values()])
        been = {
            other: frozenset(was.get(other, History()).countries)
            | {place.code for e in did[other] if (place := places.get(e.source_ip)) is not None and place.code}
            for other in near
        }
        findings: list[Finding] = []
        for device_id in device_ids:
            status, since = states.get(device_id, ("", 0.0))
            case = DeviceCase(
                device_id,
                events[device_id],
                still_open.get(device_id, ()),
                known.get(device_id, History()),
                places,
                status,
                since,
                {key: made.until for key, made in handled.items()},
                joined.get(device_id, 0.0),
                frozenset().union(*(been[other] for other in others.get(device_id, ()))),
            )
            found, again = evaluate(case, now, settings)
            findings += found
            if again:
                self._again.add(device_id)
        self._book.apply(findings)

    def _condition(self, kinds: Sequence[str], found: Iterable[Finding], settings: RuleSettings) -> None:
        """What a rule says *is*; alerts about what is not any more end."""
        findings = [finding for finding in found if settings.lets_pass(finding)]
        there = {finding.key for finding in findings}
        self._book.apply(findings, ended=self._book.open_keys(kinds) - there)

    def _places(self, events: Iterable[Sequence[Event]]) -> dict[str, Place]:
        """Where addresses are, as far as anybody knows."""
        addresses = sorted(
            {event.source_ip for part in events for event in part if event.reason is None and event.source_ip}
        )
        if not addresses:
            return {}
        found: dict[str, Any] = self._context.ask("geo_locator", Locate(tuple(addresses)), deadline=_ASK_S)
        return {
            address: Place(at.latitude, at.longitude, at.city, at.country, at.country_code) for address, at in found.items()
        }

    def _come(self, name: str, at_least: int) -> int:
        if self._progress is None:
            with self._store.read() as tx:
                self._progress = rows.progress(tx)
            if _SEEN in self._progress:
                self._progress[_SEEN] -= to_micros(_LATER_S)
        return max(self._progress.get(name, 0), at_least)

    def _note(self, name: str, value: int, also: Callable[[Tx], object] = lambda _tx: None) -> None:
        def write(tx: Tx) -> None:
            also(tx)
            rows.note_progress(tx, {name: value})

        self._book.apply((), also=write)
        if self._progress is not None:
            self._progress[name] = value
