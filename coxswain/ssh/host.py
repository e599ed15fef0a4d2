"""A machine as onboarding sees it: commands with deadlines, files put there whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import shlex
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coxswain.errors import NodeFailure, NodeMisbehaved, NodeRefused, NodeUnreachable
from coxswain.words import plain

__all__ = ["BLOCK", "MAX_OUTPUT", "CommandFailed", "Done", "Host", "SentFile", "digest_of", "script_of", "text_of"]

MAX_OUTPUT = 256 * 1024
"""Bytes that are kept of each output; the rest is read and dropped."""

BLOCK = 256 * 1024
_SMALL = 1_000_000
_SHOWN = 1_200


@dataclass(frozen=True, slots=True)
class Done:
    """What a command came to. Output is text (``text_of``)."""

    code: int
    stdout: str
    stderr: str

    @property
    def printed(self) -> str:
        """For an error: its complaint, or what else it said."""
        return self.stderr.strip() or self.stdout.strip() or "it printed nothing"


def text_of(raw: bytes | bytearray) -> str:
    """What a host printed, as lines of plain text; what is no UTF-8 is replaced as well."""
    text = raw.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")  # progress is a line, each time
    return plain(text, "\t\n")


class CommandFailed(NodeRefused):
    """A command on a host failed. Says which, and what it printed."""

    def __init__(self, host: str, what: str, done: Done) -> None:
        super().__init__(f"{host}: {what} failed (exit code {done.code}): {done.printed[-_SHOWN:]}")
        self.done = done


class Host(ABC):
    """One connection to one machine. ``close`` may be called on any thread, and ends what runs.

    Attributes:
        name: for messages.
        sudo: commands are run as root through ``sudo -n``.
        facts: what it is, once that was asked.
        absent: files that were not there then; see ``was_absent``.
        clock: the time there then, in seconds since the epoch; None: it did not tell.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.sudo = False
        self.facts: dict[str, str] | None = None
        self.absent: set[str] = set()
        self.clock: float | None = None

    @abstractmethod
    def execute(
        self, command: str, *, stdin: Iterator[bytes] | None = None, deadline: float = 60.0, max_output: int = MAX_OUTPUT
    ) -> Done:
        """Gives a command line to the login user's own shell. Raises ``NodeUnreachable``, ``DeadlineExceeded``."""

    @abstractmethod
    def close(self) -> None:
        """Ends it."""

    def run(
        self, script: str, *, what: str = "", deadline: float = 60.0, check: bool = True, stdin: bytes | None = None
    ) -> Done:
        """Runs a shell script as root. ``what``: what it is for, in messages; default: the script.

        Raises:
            CommandFailed: it failed, and ``check``.
        """
        what = what or _brief(script)
        with _telling(what):
            done = self.execute(self.as_root(script), stdin=None if stdin is None else iter([stdin]), deadline=deadline)
        done = _said(done)
        if check and done.code:
            raise CommandFailed(self.name, what, done)
        return done

    def ask(self, script: str, *, what: str = "", deadline: float = 60.0) -> Done:
        """Runs a shell script as the login user. ``what``: as in ``run``. Raises as ``execute`` does."""
        with _telling(what or _brief(script)):
            return _said(self.execute(_in_sh(script), deadline=deadline))

    def was_absent(self, *paths: str) -> bool:
        """Whether none of them was there when the host told what it is. Says yes once in a connection: who asks may make
        them, and has to look the next time.
        """
        none = self.absent.issuperset(paths)
        if none:
            self.absent.difference_update(paths)
        return none

    def as_root(self, script: str) -> str:
        """The command line that runs ``script`` with the rights of root."""
        return f"{'sudo -n ' if self.sudo else ''}{_in_sh(script)}"

    def put(
        self,
        path: str,
        content: bytes | Path,
        mode: int,
        *,
        deadline: float = 60.0,
        progress: Callable[[int, int], None] = lambda _sent, _size: None,
    ) -> str:
        """Writes a file whole or not at all: into a temporary file that nobody can read who is not to read the file itself,
        checked by length and digest, synced, given its mode, renamed. A connection that breaks in the middle leaves the old
        file, and no other. Returns its SHA-256, lower hex.

        Raises:
            CommandFailed: no space, no such directory, no right to write.
            NodeFailure: what arrived is not what was sent.
        """
        file = SentFile(path, content, mode)
        self._place([file], "", "", deadline, progress)
        return file.digest

    def put_and_run(
        self,
        files: Sequence[SentFile],
        script: str = "",
        *,
        what: str = "",
        deadline: float = 60.0,
        progress: Callable[[int, int], None] = lambda _sent, _size: None,
    ) -> Done:
        """``put`` for each of ``files``, and then ``run``, all in one command, which costs a host more than a small file.
        None of the files is in place before all of them arrived. Raises as those two do.
        """
        return self._place(files, script, what, deadline, progress)

    def _place(
        self,
        files: Sequence[SentFile],
        script: str,
        what: str,
        deadline: float,
        progress: Callable[[int, int], None],
    ) -> Done:
        parents = dict.fromkeys(shlex.quote(file.parent) for file in files)
        lines = []
        if files:
            lines += [_PUT_BEGIN, *(f"[ -d {parent} ] || (umask 022; mkdir -p {parent})" for parent in parents)]
            lines += [file.receive(alone=len(files) == 1) for file in files]
            lines += ['sync "$@" 2>/dev/null || sync', *(file.move() for file in files)]
            lines.append(f"trap - EXIT; sync {' '.join(parents)} 2>/dev/null || true")
        if script:  # under the umask of everybody's root
            lines += [f"echo '{_IN_PLACE}'; set +e; umask 022", script]
        blocks = itertools.chain.from_iterable(_blocks(file.content, file.size, progress) for file in files)
        names = ", ".join(file.path for file in files)
        writing = f"writing {names} ({sum(file.size for file in files)} bytes)"
        what = what or _brief(script)
        with _telling(" and ".join(filter(None, (writing if files else "", what if script else "")))):
            done = _said(self.execute(self.as_root("\n".join(lines)), stdin=blocks, deadline=deadline))
        marked, _, rest = done.stdout.partition("\n")
        if script and marked == _IN_PLACE:
            done = Done(done.code, rest, done.stderr)
            if done.code:
                raise CommandFailed(self.name, what, done)
            return done
        if done.code == _DAMAGED:
            raise NodeFailure(f"{self.name}: {names} did not arrive whole: {done.stderr.strip()[-_SHOWN:]}")
        if done.code:
            raise CommandFailed(self.name, writing, done)
        return done

    def read(self, path: str, limit: int = 64 * 1024) -> bytes | None:
        """The beginning of a file; None: there is none."""
        quoted = shlex.quote(path)
        done = self.run(f"if [ -e {quoted} ]; then head -c {limit} {quoted} | base64; else exit 44; fi", check=False)
        if done.code == _ABSENT:
            return None
        if done.code:
            raise CommandFailed(self.name, f"reading {path}", done)
        import base64  # noqa: PLC0415 - beside its one use

        try:
            return base64.b64decode(done.stdout)
        except ValueError:
            raise NodeMisbehaved(f"{self.name}: reading {path}, it printed no base64: {done.stdout[:60]!r}") from None


_BEGINNING = "cox: from here on"

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where systemd looks, and so what it starts. A login shell may lack the half of it, ``sudo`` the local ones; what they have
comes first.
"""
_WITH_PATH = f"PATH=$PATH:{_PATH}\n"


def _in_sh(script: str) -> str:
    """The command line for a script. It says first where its own output begins: login shells print greetings before it."""
    whole = f"echo '{_BEGINNING}'\n{_WITH_PATH}{script}"
    return f"sh -c {shlex.quote(whole)}"


def script_of(command: str) -> str:
    """The beginning of a command line, for an error: of its script, if it is one of ours, as all begin alike."""
    _, ours, script = command.partition(_WITH_PATH)
    return repr((script.removesuffix("'") if ours else command)[:100])


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """A connection that breaks is told with what it broke at: that may be done, or half done."""
    try:
        yield
    except NodeUnreachable as error:
        raise NodeUnreachable(f"{error}; it was at {what}", remedy=error.remedy) from error


def _said(done: Done) -> Done:
    """What the script printed. All of it, where none ran: that says why."""
    before, begun, after = done.stdout.partition(f"{_BEGINNING}\n")
    return Done(done.code, after if begun else before, done.stderr)


_DAMAGED = 45
_ABSENT = 44

_IN_PLACE = "cox: in place"

_PUT_BEGIN = """set -e; umask 077; set --; trap 'rm -f "$@"' EXIT; trap 'exit 1' HUP INT TERM PIPE"""

# openssl uses the processor's own SHA instructions, which sha256sum does not: 40 MB in 0.03 s of CPU, not 0.26; but it takes
# 5 ms to start, so small files go without. Each process costs the host a millisecond, for each of many files; what the shell
# does itself costs nothing. A host that has one of the two will do.
_DIGESTS = ('sha256sum < "$t"', 'openssl dgst -sha256 -r < "$t"')
_RECEIVE = """t={temporary}; set -- "$@" "$t"
{public}{receive} > "$t"
d=$({digesting})
if [ "${{d%% *}}" != {digest} ]; then
n=$(wc -c < "$t"); echo "$n of {size} bytes, and the SHA-256 is ${{d%% *}}, not {digest}" >&2; exit 45; fi
{finally_}"""
_PUBLIC = 0o644


class SentFile:
    """A file on its way: where to, its bytes or where they are here, its mode. Raises ``OSError`` when it cannot be read.

    Attributes:
        digest: its SHA-256, lower hex; what arrives is held against it.
    """

    def __init__(self, path: str, content: bytes | Path, mode: int) -> None:
        self.path = path
        self.parent = path.rpartition("/")[0] or "/"
        self.content = content
        self.mode = mode
        self.size, self.digest = _measure(content)
        self._temporary = f"{path}.cox-{secrets.token_hex(4)}"

    def receive(self, *, alone: bool) -> str:
        public = self.mode == _PUBLIC  # made like that, which spares a process; all else is the owner's until it is whole
        return _RECEIVE.format(
            temporary=shlex.quote(self._temporary),
            public="umask 022; " if public else "umask 077; ",
            finally_="" if public else f'chmod {self.mode:o} "$t"',
            receive=self._receive(alone=alone),
            size=self.size,
            digest=self.digest,
            digesting=" 2>/dev/null || ".join(_DIGESTS if self.size < _SMALL else reversed(_DIGESTS)),
        )

    def _receive(self, *, alone: bool) -> str:
        """Takes no byte more, where others follow."""
        if alone:
            return "cat"
        return f"dd bs={self.size} count=1 iflag=fullblock status=none" if self.size else ":"

    def move(self) -> str:
        """Never into a directory that another user put there as a link (``-T``)."""
        return f"mv -fT {shlex.quote(self._temporary)} {shlex.quote(self.path)}"


def digest_of(path: Path) -> str:
    """SHA-256 of a file, lower hex. Calculated again only when the file changed: one program goes to many hosts. Raises
    ``OSError``.
    """
    found = path.stat()
    mark = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    with _digests_lock:
        known = _digests.get(path)
        if known is None or known[0] != mark:
            with path.open("rb") as file:
                known = (mark, hashlib.file_digest(file, "sha256").hexdigest())
            _digests.clear()  # the last one or two are enough
            _digests[path] = known
        return known[1]


_digests_lock = threading.Lock()
_digests: dict[Path, tuple[tuple[int, ...], str]] = {}


def _measure(content: bytes | Path) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    return content.stat().st_size, digest_of(content)


def _blocks(content: bytes | Path, size: int, progress: Callable[[int, int], None]) -> Iterator[bytes]:
    sent = 0
    if isinstance(content, bytes):
        yield content
        progress(size, size)
        return
    with content.open("rb") as file:
        while block := file.read(BLOCK):
            yield block
            sent += len(block)
            progress(sent, size)


def _brief(script: str) -> str:
    line = " ".join(script.split())
    return f"{line[:157]}…" if len(line) > 160 else line
