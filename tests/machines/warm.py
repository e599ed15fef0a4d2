"""A host's interpreter that has loaded the agent already, for benchmarks: twenty hosts that share two processors would spend
them on importing gRPC twenty times, which twenty hosts in life do at once, each on its own.

Runs in the host's mount namespace. ``LAUNCHER`` is what is installed as ``node`` there: it hands its arguments and files to
this process, which forks, and the child runs the real agent.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from typing import Any

__all__ = ["LAUNCHER", "SOCKET"]

SOCKET = "/run/warm.sock"

LAUNCHER = """\
import sys
if sys.argv[1:2] in (["version"], ["runs-as"]):
    print({"version": VERSION}.get(sys.argv[1], "cox-node"))
    sys.exit(0)
import _socket, array, os
import _signal as signal
link = _socket.socket(_socket.AF_UNIX)
link.connect("/run/warm.sock")
ask = "\\0".join([VERSION, *sys.argv[1:]]).encode()
link.sendmsg([ask], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
pid = int(link.recv(32))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: os.kill(pid, signal.SIGTERM))
sys.exit(int(link.recv(32) or b"1"))
"""
"""Imports as little as it can: it is started three times for each of twenty hosts."""


def _serve() -> None:
    import coxswain  # noqa: PLC0415 - not for those who only want the launcher
    from coxswain.agent import identity, node, service, simulated  # noqa: F401, PLC0415
    from coxswain.agent.main import main  # noqa: PLC0415

    identity.new_csr(identity.ec.generate_private_key(identity.ec.SECP256R1()))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(SOCKET)
        os.chmod(SOCKET, 0o777)  # noqa: PTH101 - the agent's own user calls as well
        listener.listen(16)
        while True:
            link, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _attend(link, coxswain, main)
            link.close()


def _attend(link: socket.socket, coxswain: Any, main: Any) -> None:
    """One launcher; never returns."""
    raw, files, _, _ = socket.recv_fds(link, 65_536, 3)
    version, *argv = raw.decode().split("\0")
    _, uid, gid = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid:  # as whoever called
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    child = os.fork()
    if child == 0:
        link.close()
        for target, file in enumerate(files):
            os.dup2(file, target)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        coxswain.__version__ = version
        sys.argv = ["node", *argv, *(["--data-plane", "simulated"] if argv[0] == "run" else [])]
        code = 1
        try:
            main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    link.send(str(child).encode())
    _, status = os.waitpid(child, 0)
    link.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


if __name__ == "__main__":
    _serve()
