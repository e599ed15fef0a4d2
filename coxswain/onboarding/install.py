"""Steps that nodes and relays share: preparing the host, putting a program there, its certificate; and all that back."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from coxswain.errors import Conflict, NodeMisbehaved, NodeRefused
from coxswain.onboarding.account import take_back
from coxswain.onboarding.binary import HEAD_BYTES, check_binary, display_version, normalise_version
from coxswain.onboarding.candidate import candidate_version
from coxswain.onboarding.facts import check_room
from coxswain.onboarding.guard import UNGUARD
from coxswain.onboarding.units import PREPARE, SYSCTL, Program, unit_file
from coxswain.operations import Work
from coxswain.ssh import Host, SentFile

__all__ = [
    "get_csr",
    "install",
    "prepare",
    "put_back",
    "remember_key",
    "stage",
    "staged_version",
    "swap_back",
    "swap_forth",
    "swap_in",
    "uninstall",
    "unstage",
    "wipe",
]

_SYSCTL_FILE = "/etc/sysctl.d/99-pharos.conf"
_CSR_END = "-----END CERTIFICATE REQUEST-----"


def prepare(work: Work, host: Host) -> None:
    """AmneziaWG and the sysctls, as far as they are missing (node-contract.md 3.8). Fails loudly when ``awg`` is not there
    then.
    """
    if host.facts is not None and host.facts.get("awg"):
        work.say("awg is there already")
    else:
        work.say("installing amneziawg and amneziawg-tools")
        host.run(PREPARE, what="installing AmneziaWG", deadline=900)
    host.put_and_run(
        [SentFile(_SYSCTL_FILE, SYSCTL.encode(), 0o644)],
        f"sysctl -q -p {_SYSCTL_FILE} || exit; modprobe amneziawg; command -v awg",
        what="applying the sysctls, loading the kernel module, and looking for awg",
    )


def install(work: Work, host: Host, program: Program) -> None:
    """``stage`` and ``swap_in``, in one command where the program is uploaded."""
    present, staged = _look(work, host, program)
    if present != work.params["source"]["sha256"]:
        work.remember(before=present)
        if not _stage(work, host, program, staged, then=_swapping(program)):
            swap(host, program)
    _keep_version(work, host, program)


def stage(work: Work, host: Host, program: Program) -> bool:
    """Puts the program that ``params["source"]`` names beside the present one, and tries it out. Nothing that runs changes.

    Where the very same file is in place already, nothing is done. Returns whether that is so.

    Raises:
        Conflict: there is nothing to replace; neither unit nor certificate will be there.
    """
    present, staged = _look(work, host, program)
    if not present and not work.data["had_key"]:
        raise Conflict(
            f"{host.name}: there is neither {program.binary} nor its key; the host was set up anew, or it was removed there",
            remedy=f"Onboard it again, as what it was: cox {program.name}s add --server SERVER",
        )
    is_there: bool = present == work.params["source"]["sha256"]
    if not is_there:
        _stage(work, host, program, staged)
    return is_there


def _look(work: Work, host: Host, program: Program) -> tuple[str, str]:
    """The digests of the program in place and of the staged one; empty: there is none."""
    present, staged, has_key = _what_is_there(host, program)
    if "had_key" not in work.data:  # the first look counts: later it may be the one that this operation made
        work.keep(had_key=has_key)
    if present == work.params["source"]["sha256"]:
        work.say("the very same program is there already")
    return present, staged


def _stage(work: Work, host: Host, program: Program, staged: str, *, then: str = "") -> bool:
    """``then``: a script for the same command, if the program ran. Returns whether that was run, which is so after an
    upload.
    """
    source: Mapping[str, str] = work.params["source"]
    says = None if staged == source["sha256"] else _fetch(work, host, program, source, then)
    version = _version(host, program.staged) if says is None else _version_in(says)
    work.keep(staged_version=version)
    work.say(f"it runs there, and is {display_version(version) or version or 'of an unknown version'}")
    return says is not None


def swap_in(work: Work, host: Host, program: Program) -> None:
    """The staged program into its place; what was there stays as ``.previous``. One that runs is not disturbed."""
    present = _digest(host, program.binary)
    if present != work.params["source"]["sha256"]:
        work.remember(before=present)
        swap(host, program)
    _keep_version(work, host, program)


def _keep_version(work: Work, host: Host, program: Program) -> None:
    """What the file was built of counts, as with what is offered; else what the program says (relay-contract.md 7.4)."""
    staged = work.data.get("staged_version")
    says = _version(host, program.binary) if staged is None else staged
    work.keep(agent_version=candidate_version(str(work.params["source"].get("path", ""))) or says)


def swap(host: Host, program: Program) -> None:
    """May be repeated."""
    host.run(_swapping(program), what=f"replacing {program.binary}")


def _swapping(program: Program) -> str:
    new, now, before = program.staged, program.binary, program.previous
    return (
        f"set -e; [ -e {new} ] || exit 0; if [ -e {now} ]; then cp -p {now} {before}.cox-tmp; "
        f"mv -f {before}.cox-tmp {before}; fi; mv -f {new} {now}; sync {now} 2>/dev/null || true"
    )


def swap_back(work: Work, host: Host, program: Program) -> None:
    """The program from before, once it was tried out, changes places with the present one. May be interrupted anywhere: goes
    by digests, like ``put_back``.

    Raises:
        Conflict: there is none.
    """
    wanted = work.remembered.get("wanted")
    if wanted is None:
        wanted = _digest(host, program.previous)
        if not wanted:
            raise Conflict(f"{host.name}: there is no previous agent to put back")
        _version(host, program.previous)
        work.remember(wanted=wanted, before=_digest(host, program.binary))
    _exchange(host, program, wanted)


def swap_forth(work: Work, host: Host, program: Program) -> bool:
    """The undo of ``swap_back``. Returns whether the program from before that is in its place; else nobody knows of one."""
    wanted, before = (work.remembered.get(name) for name in ("wanted", "before"))
    if not before:
        return False  # nothing was done, or a release from before this one did it
    if _digest(host, program.binary) != before:
        _exchange(host, program, before)
        work.say("the agent that was rolled back is in its place again")
    elif _digest(host, program.staged) == wanted:  # it was on its way
        host.run(f"mv -f {program.staged} {program.previous}", what="leaving the previous agent where it was")
    return True


def _exchange(host: Host, program: Program, wanted: str) -> None:
    """Puts the program with this digest, which is the previous one, into place, and the present one there."""
    if _digest(host, program.binary) == wanted:
        return  # an earlier attempt did it
    if _digest(host, program.staged) != wanted:
        if _digest(host, program.previous) != wanted:
            raise NodeRefused(f"{host.name}: {program.previous} is not the program from before; nothing was put back")
        host.run(f"mv -f {program.previous} {program.staged}", what="putting the previous agent back")
    swap(host, program)


def staged_version(host: Host, program: Program) -> str:
    """What was staged says it is; empty: nothing is staged."""
    if host.run(f"[ -e {program.staged} ]", check=False).code:
        return ""
    return _version(host, program.staged)


def unstage(host: Host, program: Program) -> None:
    """Takes away what was staged. The undo of ``stage``."""
    host.run(f"rm -f {program.staged} {program.binary}*.cox-*", what="removing what was uploaded")


def put_back(work: Work, host: Host, program: Program) -> None:
    """The program from before, or none if there was none. The undo of ``swap_in``; goes by digests, not by assumptions. What
    runs is not disturbed.
    """
    before = work.remembered.get("before")
    if before is None or _digest(host, program.binary) == before:
        return
    if not before:
        host.run(f"rm -f {program.binary} {program.previous}", what="removing the program")
        return
    if _digest(host, program.previous) != before:
        raise NodeRefused(f"{host.name}: {program.previous} is not the program from before; nothing was put back")
    host.run(f"mv -f {program.previous} {program.binary}", what="putting the previous program back")
    work.say("the previous program is back")


def remember_key(work: Work, host: Host, program: Program) -> None:
    """``had_key``, for the undo: whether there was a key before this operation made one. ``stage`` may have seen it."""
    if "had_key" not in work.remembered:
        seen = work.data.get("had_key")
        work.remember(had_key=host.run(f"[ -e {program.key} ]", check=False).code == 0 if seen is None else seen)


def get_csr(host: Host, program: Program) -> bytes:
    """From the key that stays on the host; made there the first time."""
    done = host.run(f"{program.binary} gen-csr --config-dir {program.directory}", what=f"{program.name} gen-csr")
    start = done.stdout.find("-----BEGIN CERTIFICATE REQUEST-----")
    end = done.stdout.find(_CSR_END)
    if start < 0 or end < start:
        raise NodeMisbehaved(f"{host.name}: {program.name} gen-csr printed no certificate request: {done.stdout[:200]!r}")
    return (done.stdout[start : end + len(_CSR_END)] + "\n").encode()


def uninstall(host: Host, program: Program, *units: str) -> None:
    """All of it: units, interfaces, files. May be repeated."""
    for unit in units:
        host.run(f"systemctl disable --now {unit} 2>/dev/null || true", what=f"stopping {unit}", deadline=60)
        host.run(f"rm -f {unit_file(unit)}", what=f"removing {unit}")
    host.run("systemctl daemon-reload", what="systemctl daemon-reload")
    wipe(host, program)


def wipe(host: Host, program: Program) -> None:
    """Interfaces that only the program kept, its keys and itself."""
    if program.name == "node":
        host.run(UNGUARD, what="opening the control port")
        host.run(
            'for f in /etc/amnezia/amneziawg/awg[0-9]*.conf; do [ -e "$f" ] || continue; i=$(basename "$f" .conf); '
            'ip link del "$i" 2>/dev/null || true; rm -f "$f"; done',
            what="removing interfaces",
        )
    files = " ".join((program.binary, program.staged, program.previous, f"{program.binary}.cox-*"))
    host.run(f"rm -f {files}", what="removing programs")
    emptied = f"[ ! -d {program.directory} ] || find {program.directory} -mindepth 1 -delete"
    host.run(f"{emptied}; rmdir {program.directory} 2>/dev/null || true", what="removing keys and state")
    take_back(host, program)


def _what_is_there(host: Host, program: Program) -> tuple[str, str, bool]:
    """The digests of the program in place and of the staged one (empty: there is none), and whether it has a key; asked for
    at once.

    Raises:
        Conflict: Node.js is in place; ``/usr/local/bin/node`` is where it is often installed (node-contract.md 12.15).
    """
    now, new = program.binary, program.staged
    if host.was_absent(now, new, program.key):
        return "", "", False
    says = f'v=; [ ! -e {now} ] || v=$({now} --version 2>/dev/null </dev/null) || v=; echo "${{v%%[!v0-9.]*}}"'
    digests = f"{_digesting(now)} || echo; {_digesting(new)} || echo"
    done = host.run(f"{says}; {digests}; [ ! -e {program.key} ] || echo key", what="looking what is there")
    lines = done.stdout.splitlines()
    if len(lines) not in (3, 4):
        raise NodeMisbehaved(f"{host.name}: asked what is in /usr/local/bin, it printed {done.stdout[:200]!r}")
    if lines[0].startswith("v"):
        raise Conflict(
            f"{host.name}: {now} is Node.js {lines[0][:20]}, not an agent",
            remedy="Move Node.js out of /usr/local/bin, or use another host.",
        )
    return lines[1][:64], lines[2][:64], len(lines) == 4


def _fetch(work: Work, host: Host, program: Program, source: Mapping[str, str], then: str) -> str | None:
    """Returns what it printed when it was tried out, and ``then`` run; None: neither was."""
    facts = work.data["facts"] if host.facts is None else host.facts  # of now: what was missing may be there by a retry
    check_room(host.name, facts)
    staged = program.staged
    if source["path"]:
        path = Path(source["path"])
        try:
            with path.open("rb") as file:
                head = file.read(HEAD_BYTES)
            sent = SentFile(staged, path, 0o755)
        except OSError as error:
            raise Conflict(f"{path} cannot be read any more: {error.strerror}") from None
        check_binary(head, facts)
        if sent.digest != source["sha256"]:
            raise NodeRefused(f"{path}: its SHA-256 is {sent.digest}, not {source['sha256']}; it was not installed")
        trying, what = f"{staged} version", _trying(staged)
        if then:
            trying, what = f"{trying} || exit\n{then}", f"{what} and putting it in place"
        return host.put_and_run([sent], trying, what=what, deadline=900, progress=_Progress(work)).stdout
    url, temporary = shlex.quote(source["url"]), f"{staged}.cox-download"
    work.say(f"the host fetches {source['url']}")
    schemes = "https" if source["url"].startswith("https:") else "http,https"
    host.run(
        f"set -e; umask 077; trap 'rm -f {temporary}' EXIT; "
        f"curl -fsSL --proto ={schemes} --max-time 840 -o {temporary} {url}; mv -f {temporary} {staged}",
        what=f"fetching {source['url']}",
        deadline=900,
    )
    arrived = _digest(host, staged)
    if arrived != source["sha256"]:
        host.run(f"rm -f {staged}", check=False)
        raise NodeRefused(f"{host.name}: the program's SHA-256 is {arrived}, not {source['sha256']}; it was not installed")
    check_binary(host.read(staged, HEAD_BYTES) or b"", facts)
    host.run(f"chmod 755 {staged}", what="making the program executable")
    return None


def _version(host: Host, binary: str) -> str:
    """What it says it is; that it says so proves that it runs there."""
    return _version_in(host.run(f"{binary} version", what=_trying(binary), deadline=60).stdout)


def _trying(binary: str) -> str:
    return f"trying the program out ({binary} version)"


def _version_in(printed: str) -> str:
    words = printed.split()
    return normalise_version(printed) or (words[-1][:60] if words else "")


def _digest(host: Host, path: str) -> str:
    done = host.run(_digesting(path), check=False)
    return done.stdout[:64] if done.code == 0 else ""


def _digesting(path: str) -> str:
    return f"{{ [ -e {path} ] && {{ openssl dgst -sha256 -r < {path} 2>/dev/null || sha256sum < {path}; }}; }}"


class _Progress:
    """Says each quarter of a large upload, and lets a cancelled one go."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._said = 0

    def __call__(self, sent: int, size: int) -> None:
        self._work.check()
        quarter = 4 * sent // max(size, 1)
        if quarter > self._said and size > 1_000_000:
            self._said = quarter
            self._work.say(f"{25 * quarter} % of {size / 1e6:.1f} MB sent")
