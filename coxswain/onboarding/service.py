"""The units of nodes and relays: written, started, waited for, and stopped, with those from before put back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from coxswain.errors import NodeFailure, NodeRefused
from coxswain.onboarding.account import take_back
from coxswain.onboarding.units import Program, unit_file
from coxswain.operations import Work
from coxswain.ssh import Host, SentFile

__all__ = [
    "end_units",
    "last_words",
    "restart_what_runs",
    "runs_as_it_should",
    "start_unit",
    "start_with",
    "stop_units",
    "unit_says",
    "wait_until_up",
]

_WORDS_MAX = 1_000
_STAMP = re.compile(r"(time=)?\d{4}[-/]\d\d[-/]\d\d[ T]\S+ ?")
"""The time at the beginning of a line of an agent's or a relay's log."""


def start_with(work: Work, host: Host, unit: str, write: Callable[[], str]) -> None:
    """Writes a unit and starts it as ``start_unit`` does; the one from before is remembered for the undo, also where it is
    the same.

    Args:
        work: of the operation.
        host: the machine.
        unit: its name.
        write: what is to be in it; called when the one from before is safe, and may prepare the host for it.
    """
    path = unit_file(unit)
    present = None if host.was_absent(path) else host.read(path)
    if unit not in work.remembered:
        work.remember(**{unit: None if present is None else present.decode(errors="replace")})
    text = write().encode()
    files = [] if present == text else [SentFile(path, text, 0o644)]
    script = f"systemctl daemon-reload && systemctl enable {unit} || exit; {_start(unit)}"
    host.put_and_run(files, script, what=f"enabling and starting {unit}", deadline=60)


def end_units(work: Work, host: Host, *units: str) -> None:
    """Stops and removes those of ``units`` that are there: what they served is no role of the program any more. They are
    remembered as ``start_with`` does, for the same undo. May be repeated.
    """
    for unit in units:
        path = unit_file(unit)
        present = None if host.was_absent(path) else host.read(path)
        if present is None:
            continue
        if unit not in work.remembered:
            work.remember(**{unit: present.decode(errors="replace")})
        script = f"systemctl disable --now {unit} 2>/dev/null; rm -f {path} && systemctl daemon-reload"
        host.run(script, what=f"stopping and removing {unit}", deadline=60)
        work.say(f"{unit} is stopped and removed: that is no role of it any more")


def start_unit(host: Host, unit: str) -> None:
    """Restarts one that runs: it would go on with the program and the certificate it was started with."""
    host.run(_start(unit), what=f"starting {unit}", deadline=60)


def _start(unit: str) -> str:
    return f"systemctl reset-failed {unit} 2>/dev/null; systemctl restart {unit}"


def runs_as_it_should(host: Host, program: Program, unit: str, text: str) -> bool:
    """Whether a service runs the program in place: its unit is ``text``, and it was started since the program was put there.
    What the host cannot tell is taken for no.
    """
    if host.read(unit_file(unit)) != text.encode():
        return False
    script = (
        f"systemctl is-active --quiet {unit} || exit; "
        f's=$(TZ=UTC systemctl show -p ExecMainStartTimestamp {unit}) && s=${{s#*=}} && [ -n "$s" ] || exit; '
        f's=$(date -d "$s" +%s) && [ "$s" -ge "$(stat -c %Z {program.binary})" ]'
    )
    return host.run(script, check=False).code == 0


def restart_what_runs(work: Work, host: Host, *units: str) -> None:
    """Of ``units``, those that are there and run: what they were started with has been replaced. Those that ``stop_units``
    gave back run as well, or died of the program that was in their place until now.
    """
    for unit in units:
        runs = "true" if unit in work.data.get("given_back", ()) else f"systemctl is-active --quiet {unit}"
        if host.run(f"[ -e {unit_file(unit)} ] && {runs}", check=False).code == 0:
            start_unit(host, unit)


def stop_units(work: Work, host: Host, program: Program, *units: str) -> None:
    """Stops, disables and removes units; those from before come back, and one that was not looked at yet is left alone. The
    undo of ``start_with``.

    The user that the program runs as goes with them, unless a unit that is there wants it.
    """
    units = tuple(unit for unit in units if unit in work.remembered)
    for unit in units:
        path = unit_file(unit)
        before = work.remembered.get(unit)
        host.run(f"systemctl disable --now {unit} 2>/dev/null || true", what=f"stopping {unit}", deadline=60)
        if before is None:
            host.run(f"rm -f {path}", what=f"removing {unit}")
        else:
            host.put(path, str(before).encode(), 0o644)
    host.run("systemctl daemon-reload", what="systemctl daemon-reload")
    take_back(host, program)
    given_back = [unit for unit in units if work.remembered.get(unit) is not None]
    work.keep(given_back=given_back)
    for unit in units:
        if unit in given_back:
            host.run(f"systemctl enable {unit} && systemctl restart {unit}", what=f"starting {unit} again", deadline=60)


def unit_says(host: Host, unit: str) -> str:
    """The last lines of its log."""
    done = host.run(f"journalctl -u {unit} -n 15 --no-pager -o cat 2>&1 | tail -n 15", check=False)
    return last_words(done.stdout)


def last_words(printed: str) -> str:
    """The end of what a service printed, for an error: whole lines, 1,000 characters at most. What it says over and over,
    as it does for each try, is there once, where it was last.
    """
    seen: set[str] = set()
    kept: list[str] = []
    for line in reversed(printed.strip().splitlines()):
        stamp = _STAMP.match(line)
        said = line[stamp.end() :] if stamp else line
        if said in seen:
            continue
        if kept and len("\n".join([line, *kept])) > _WORDS_MAX:
            break
        seen.add(said)
        kept.insert(0, line)
    return "\n".join(kept)[-_WORDS_MAX:] or "it printed nothing"


def wait_until_up(
    work: Work,
    host: Host,
    unit: str,
    look: Callable[[], bool],
    what: str,
    *,
    timeout: float,
    why: Callable[[], str] = lambda: "",
) -> None:
    """Until ``look`` is true; gives up early when the service is not running any more, and says what it printed.

    ``why``: what is known of the reason, when time is up.

    Raises:
        NodeRefused: it died, or did not get there in time.
    """
    checked_at, downs = time.monotonic(), 0

    def check() -> bool:
        nonlocal checked_at, downs
        if look():
            return True
        if time.monotonic() - checked_at >= 1.0:
            downs = 0 if host.run(f"systemctl is-active --quiet {unit}", check=False).code == 0 else downs + 1
            checked_at = time.monotonic()
            if downs >= 2:
                raise NodeRefused(
                    f"{host.name}: {unit} was started and died; it printed: {unit_says(host, unit)}",
                    remedy=f"Mend the cause on the host (journalctl -u {unit}), and retry.",
                )
        return False

    try:
        work.wait_for(check, what, timeout=timeout, every=0.1)
    except NodeFailure:
        raise
    except Exception as error:
        work.check()  # cancelled, or cut off: that counts, not what it was waiting for
        reason = f" ({known})" if (known := why()) else ""
        raise NodeRefused(f"{host.name}: {error}{reason}; {unit} printed: {unit_says(host, unit)}") from error
