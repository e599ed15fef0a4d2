"""``cox serve``: opens the state, builds the tree, runs it until a signal."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import shutil
import signal
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import coxswain
from actors.configuration import LEVELS
from actors.tree import Parts, build
from coxswain import __version__
from coxswain.audit.keys import load_audit_key
from coxswain.backup.put_back import revoke_again
from coxswain.clock import SystemClock
from coxswain.config import Config
from coxswain.config.live import LiveConfig
from coxswain.errors import Refused
from coxswain.keyring import KeySource, load_secret, open_keyring
from coxswain.limits import collect_rarely, raise_descriptor_limit
from coxswain.messages.configuration import HungUp
from coxswain.statedir import open_state_directory
from coxswain.store import Durability, Store, open_store
from coxswain.words import plain

__all__ = ["serve"]

_BUILD_ID = re.compile("[0-9a-f-]{16,64}")
_STACK_BYTES = 512 * 1024
"""Of each actor's thread. Only touched pages count, but thousands of default 8 MB stacks exhaust address space limits."""

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2

_log = logging.getLogger("coxswain")


def serve(config: Config, *, allow_chaos: bool = False) -> int:
    """Runs the daemon in this process. Returns its exit code.

    Raises:
        CoxswainError: the state cannot be opened; nothing was started.
    """
    _set_up_process(config)
    with ExitStack() as opened:
        state = open_state_directory(config.state_dir)
        opened.callback(state.close)
        _delete_stale_unpackings()
        source = KeySource(config["ca.key_source"])
        secret = load_secret(source, key_file=config.key_file, environ=dict(os.environ))
        store = open_store(config.database, exclusive=True)
        opened.callback(store.close)
        if config.audit_paths.key.exists():
            load_audit_key(config.audit_paths.key)  # one that cannot be used is said here, before anything runs
        with store.write(Durability.ACKNOWLEDGED) as tx:
            if tx.execute("SELECT 1 FROM meta WHERE key = 'restoring'"):
                raise Refused(
                    "a restore of this database was interrupted", remedy="Do it again with: cox backup restore --force"
                )
            keyring = open_keyring(tx, secret)
        _revoke_again(store, config.audit_paths.revocations)
        system = build(
            Parts(
                store=store,
                keyring=keyring,
                state_dir=config.state_dir,
                socket=config.socket,
                allow_chaos=allow_chaos,
                settings=LiveConfig(config),
                listen=config["ui.listen"],
                audit_paths=config.audit_paths,
            )
        )
        _log.info("coxswain %s, pid %d, %s, state in %s", __version__, os.getpid(), store.kind, config.state_dir)
        for warning in config.warnings():
            _log.warning("configuration: %s", warning)
        code = system.run(on_hangup=lambda: system.tell("configuration", HungUp()))
        if system.failure is not None:
            _log.error("the service tree gave up: %s", system.failure)
        _log.info("stopped")
        return code


def _revoke_again(store: Store, path: Path) -> None:
    """Said here at once, and by the audit log, which has lost records with them, for as long as nobody looked into it."""
    try:
        replayed = revoke_again(store, path, SystemClock().now())
    except OSError as error:
        _log.error("whether all that was revoked is known cannot be told: %s", error)
        return
    if replayed is not None:
        done = "; ".join(replayed.effects) or "nothing that is left in it"
        _log.error("this database is older than %s: somebody put it back. Revoked or taken away again: %s", path, done)
        for stranger in replayed.strangers:
            _log.error("%s", stranger)


def _delete_stale_unpackings() -> None:
    """A zipapp unpacks each of its builds beside the last one, and nobody else ever cleans up.

    Called when this daemon holds the state, so no earlier build serves it any more.
    """
    mine = Path(coxswain.__file__).resolve().parents[2]
    name, _, build = mine.name.rpartition("_")
    root = os.environ.get("SHIV_ROOT")
    if not root or Path(root).resolve() != mine.parent or not _BUILD_ID.fullmatch(build):
        return
    for other in mine.parent.iterdir():
        its_name, _, its_build = other.name.rpartition("_")
        if its_name == name and its_build != build and _BUILD_ID.fullmatch(its_build):
            shutil.rmtree(other, ignore_errors=True)


def _limit_arenas() -> None:
    """Before there is a second thread: the C library gives threads heaps of their own, eight for each processor, and what
    was freed in one of them is of no use to the others. With Python's lock they hardly ever allocate at the same time.
    """
    with suppress(AttributeError, OSError):  # a C library without it
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


class OneLine(logging.Formatter):
    """Of each message, so that what a host or a caller sent begins no line of its own and moves no cursor. A traceback
    keeps its lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its name
        return plain(" | ".join(super().formatMessage(record).splitlines()))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - its name
        return plain(super().formatException(ei), "\t\n")


def _set_up_process(config: Config) -> None:
    import threading  # noqa: PLC0415 - beside its one use

    # Until there is somebody to read the configuration again, SIGHUP must not end the process: a service manager may send
    # it as soon as the process is there.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.stack_size(_STACK_BYTES)
    _limit_arenas()
    raise_descriptor_limit()
    collect_rarely()
    os.umask(0o077)
    # What no line shows need not be found out for each (https://docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(
        level=LEVELS[config["log.level"]],
        stream=sys.stderr,
    )
    logging.getLogger().handlers[0].setFormatter(OneLine("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    # It tells each answer that cannot be read with a traceback; the link says it once, and where one looks for it.
    logging.getLogger("grpc").setLevel(logging.CRITICAL)
