"""A real Postgres server for tests: its own cluster, on a unix socket in a temporary directory, gone afterwards."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
from psycopg import sql

from tests.support import eventually

__all__ = ["PostgresServer"]


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found:
        return found[-1]
    on_path = shutil.which("postgres")
    if on_path is None:
        raise RuntimeError("no Postgres server here; on Debian: apt-get install postgresql")
    return Path(on_path).parent


def _unprivileged() -> pwd.struct_passwd | None:
    """Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


class PostgresServer:
    """Started by ``start``; may be stopped and started again in the middle of a test."""

    def __init__(self) -> None:
        self._bin = _binaries()
        self._user = _unprivileged()
        self._dir = Path(tempfile.mkdtemp(prefix="pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        if self._user is not None:
            os.chown(self._dir, self._user.pw_uid, self._user.pw_gid)
        options = ("-U", "cox", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
        self._run("initdb", "-D", str(self._data), *options)

    @property
    def _data(self) -> Path:
        return self._dir / "data"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql:///{database}?host={self._dir}&user=cox"

    def start(self) -> None:
        """Starts the server and waits until it answers. It ends with this process, however that ends."""
        settings = ("listen_addresses=", "fsync=off", "full_page_writes=off", "max_connections=100", "shared_buffers=16MB")
        command = [str(self._bin / "postgres"), "-D", str(self._data), "-k", str(self._dir)]
        for setting in settings:
            command += ["-c", setting]
        identity = []
        if self._user is not None:
            identity = [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups"]
        with (self._dir / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=INT", *identity, "--", *command], stdout=log, stderr=log, cwd=self._dir
            )
        eventually(self._answers, timeout=30)

    def stop(self, signal_name: str = "INT") -> None:
        """``INT`` is an orderly, fast stop; ``QUIT`` a crash: no checkpoint, recovery at the next start."""
        if self._process is None:
            return
        self._process.send_signal({"INT": 2, "QUIT": 3}[signal_name])
        self._process.wait(30)
        self._process = None

    def create_database(self) -> str:
        """Returns the DSN of a fresh, empty database."""
        name = f"t{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.dsn(name)

    def remove(self) -> None:
        """The files go in the background: a whole run leaves gigabytes, which take longer to delete than a test may."""
        self.stop()
        subprocess.Popen(["rm", "-rf", "--", str(self._dir)], start_new_session=True)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self._dir / "log").read_text()[-2000:])
        try:
            psycopg.connect(self.dsn()).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *args: str) -> None:
        owner = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        subprocess.run([str(self._bin / program), *args], check=True, capture_output=True, cwd=self._dir, **owner)
