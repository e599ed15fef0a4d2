"""A host's interpreter that has loaded the agent already, for benchmarks: twenty hosts that share two processors would spend
them on importing gRPC twenty times, which twenty hosts in life do at once, each on its own.

Runs in the host's mount namespace. ``LAUNCHER`` is what is installed as ``node`` there: it asks this process, which forks,
and the child runs the real agent with the launcher's output. Signals to the launcher are passed on.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
from pathlib import Path

__all__ = ["DOOR", "LAUNCHER"]

DOOR = "/run/warm"

LAUNCHER = """\
case $1 in version | --version) echo @VERSION@; exit ;; runs-as) echo cox-node; exit ;; esac
me=/run/warm.d/$$
mkfifo $me && exec 8<> $me || exit 1
(echo "$$ @VERSION@ $*" > /run/warm) # not the output of this shell, which is looked at: in a subshell
read -r pid <&8
trap 'kill $pid 2>/dev/null' TERM INT
until read -r code <&8; do :; done
exit "$code"
"""
"""A shell, because it is started three times for each of twenty hosts, and Python costs ten times what a shell does."""


def _serve() -> None:
    # Not for those who only want the launcher.
    from coxswain.agent import identity, main, node, service, simulated  # noqa: F401, PLC0415

    identity.new_csr(identity.ec.generate_private_key(identity.ec.SECP256R1()))
    gc.freeze()  # a collection in a child would copy every page of what is loaded
    os.umask(0)
    Path(f"{DOOR}.d").mkdir(mode=0o777)  # the agent's own user calls as well
    os.mkfifo(DOOR, 0o666)
    os.umask(0o22)
    door = os.open(DOOR, os.O_RDWR)  # never at its end
    ended, bell = os.pipe()
    for end in (ended, bell):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(bell)  # a handler alone may be late: what ends just before a read is noticed after it
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([door, ended], [], [])
        if ended in ready:
            os.read(ended, 512)
            _tell_ended(running)
        if door in ready:
            for line in os.read(door, 65_536).decode().splitlines():
                launcher, version, *argv = line.split()
                answer = os.open(f"{DOOR}.d/{launcher}", os.O_RDWR)
                os.unlink(f"{DOOR}.d/{launcher}")  # noqa: PTH108 - both have it open
                child = os.fork()
                if child == 0:
                    _become(launcher, version, argv)
                running[child] = answer
                os.write(answer, b"%d\n" % child)


def _tell_ended(running: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            with os.fdopen(running.pop(found[0]), "w") as answer:
                print(os.waitstatus_to_exitcode(found[1]) & 255, file=answer)


def _become(launcher: str, version: str, argv: list[str]) -> None:
    """The agent, in the place of its launcher; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        for number in (1, 2):
            os.dup2(os.open(f"/proc/{launcher}/fd/{number}", os.O_WRONLY | os.O_APPEND), number)
        caller = Path(f"/proc/{launcher}").stat()
        if caller.st_uid:  # as whoever called
            os.setgroups([])
            os.setgid(caller.st_gid)
            os.setuid(caller.st_uid)
        import coxswain.agent.main  # noqa: PLC0415 - loaded long ago

        coxswain.__version__ = version
        sys.argv = ["node", *argv, *(["--data-plane", "simulated"] if argv[0] == "run" else [])]
        coxswain.agent.main.main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    Path(DOOR).unlink(missing_ok=True)
    _serve()
