"""Hosts for tests of onboarding: a real sshd in a mount namespace of its own, with a scratch root and a stand-in for
systemd.

A ``Machine`` is reached at a loopback address of its own, port 22, so that many of them, each with an agent on port 8444,
live in one network namespace. ``/etc/node``, ``/usr/local/bin`` and the like are directories of the test there; the rest
of the file system is that of the machine that runs the tests. Needs root and Debian's ``openssh-server``.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.machines.warm import LAUNCHER
from tests.reach import open_the_way
from tests.support import eventually

__all__ = ["PASSWORD", "Machine", "agent_file", "relay_file"]

PASSWORD = "correct horse 7"
ROOT = Path(__file__).resolve().parents[2]
_HERE = Path(__file__).resolve().parent

_OVER = (
    "etc/node", "etc/relay", "etc/systemd/system", "etc/amnezia", "etc/sysctl.d", "etc/default", "usr/local/bin", "var/lib",
    "run", "mnt",
)  # fmt: skip
"""Directories of the host that are the test's own."""

_SSHD = """\
ListenAddress {address}:22
HostKey {home}/host_{kind}
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication yes
KbdInteractiveAuthentication no
AuthorizedKeysFile {home}/.ssh/authorized_keys
LogLevel VERBOSE
MaxStartups 200
MaxSessions 50
Subsystem sftp internal-sftp
SetEnv PATH={standins}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin SCRATCH={scratch} HOME={home}
"""


class Machine:
    """One host. ``address`` is in 127.0.0.0/8. ``faults``: ``cut_at`` and ``hold`` work. ``small_mb``: what
    ``/usr/local/bin`` holds. ``warm``: see ``tests/machines/warm.py``. ``rc``: what root's login shell does before
    each command.
    """

    def __init__(
        self,
        directory: Path,
        address: str = "127.0.2.1",
        *,
        faults: bool = False,
        small_mb: int = 0,
        warm: bool = False,
        rc: str = "",
    ) -> None:
        self._faults = faults
        self._rc = rc
        self._small_mb = small_mb
        self._warm = warm
        self.address = address
        self.scratch = directory
        self.home = directory / "home"
        self.kind = "ed25519"
        self._process: subprocess.Popen[bytes] | None = None
        for name in (*_OVER, "home/.ssh", "bin", "log", "pids"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "run/sshd").mkdir(exist_ok=True)
        self.configure()
        for standin in ("slow-systemctl", "journalctl", "awg", "modprobe", "sysctl"):
            shutil.copy(_HERE / "standin.template", directory / f"bin/{standin}")
            text = (directory / f"bin/{standin}").read_text().replace("@PYTHON@", sys.executable, 1)
            (directory / f"bin/{standin}").write_text(text)
            (directory / f"bin/{standin}").chmod(0o755)
        for trivial in ("awg", "modprobe", "sysctl"):
            (directory / f"bin/{trivial}").write_text("#!/bin/sh\nexit 0\n")
        nft = f'#!/bin/sh\necho "$*" >> {directory}/log/nft\ncase $1 in -f) exec {shutil.which("nft")} -c -f "$2" ;; esac\n'
        (directory / "bin/nft").write_text(nft)  # checks rules and loads none: hosts share the network of the tests
        (directory / "bin/nft").chmod(0o755)
        (directory / "default-route").write_text("default via 198.51.100.1 dev eth0 proto dhcp \n")
        ip = f'[ "$*" != "route show default" ] || exec cat {directory}/default-route\nexec {shutil.which("ip")} "$@"\n'
        (directory / "bin/ip").write_text(f"#!/bin/sh\n{ip}")  # the tests' network may have none
        (directory / "bin/ip").chmod(0o755)
        shutil.copy(_HERE / "systemctl.template", directory / "bin/systemctl")
        (directory / "bin/systemctl").chmod(0o755)
        shell = (_HERE / "shell.template").read_text().replace("@PYTHON@", sys.executable, 1)
        (directory / "bin/faulty").write_text(shell)
        (directory / "bin/faulty").chmod(0o755)
        self._accounts()
        self._make_host_key(self.kind)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """What holds all of it, outside of its namespaces."""
        assert self._process is not None
        return self._process.pid

    @property
    def fingerprint(self) -> str:
        command = ["ssh-keygen", "-lf", str(self.home / f"host_{self.kind}.pub")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]

    @property
    def authorized_keys(self) -> Path:
        return self.home / ".ssh/authorized_keys"

    def path(self, absolute: str) -> Path:
        """A file of the host, as the test sees it."""
        return self.scratch / absolute.lstrip("/")

    def configure(self) -> None:
        """What the agent needs to know where many hosts share a network; a removal takes it away, too."""
        text = f"control:\n  listen_addr: {self.address}:8444\ndata_plane:\n  poll_interval_s: 0.5\n"
        self.path("/etc/node/node.yaml").write_text(text)

    def new_host_key(self, kind: str = "ed25519") -> None:
        """As after a reinstallation. Restarts sshd."""
        self.stop_sshd()
        for file in (self.home / f"host_{kind}", self.home / f"host_{kind}.pub"):
            file.unlink(missing_ok=True)
        self.kind = kind
        self._make_host_key(kind)
        self.start()

    @contextmanager
    def another_in_its_place(self) -> Iterator[None]:
        """Somebody who has no key of its own answers at its address. Restarts sshd twice."""
        files = [self.home / f"host_{self.kind}", self.home / f"host_{self.kind}.pub"]
        kept = [file.read_bytes() for file in files]
        self.new_host_key(self.kind)
        yield
        self.stop_sshd()
        for file, text in zip(files, kept, strict=True):
            file.write_bytes(text)
        self.start()

    def start(self) -> None:
        config = self.scratch / "sshd_config"
        config.write_text(
            _SSHD.format(
                address=self.address, home=self.home, kind=self.kind, standins=self.scratch / "bin", scratch=self.scratch
            )
        )
        mounts = [f"mount --bind {shlex.quote(str(self.scratch / d))} /{d}" for d in _OVER if Path("/", d).is_dir()]
        mounts += [
            f"mkdir -p /{d}; mount --bind {shlex.quote(str(self.scratch / d))} /{d}"
            for d in _OVER
            if not Path("/", d).is_dir()
        ]
        mounts += [f"cat {self.scratch}/{name} > /etc/{name}" for name in ("passwd", "shadow")]
        if self._small_mb:
            mounts.append(f"mount -t tmpfs -o size={self._small_mb}m small /usr/local/bin")
        if self._warm:
            mounts.append(f"cd {ROOT}; {sys.executable} -m tests.machines.warm > {self.scratch}/log/warm 2>&1 &")
        script = "\n".join(
            [
                "set -e",
                "mount --make-rprivate /",
                open_the_way(),
                _layer(),
                *mounts,
                f"exec /usr/sbin/sshd -D -e -f {config}",
            ]
        )
        log = (self.scratch / "log/sshd").open("ab")
        alone = ["setpriv", "--pdeathsig", "KILL"]  # it ends with whoever runs the tests, in whatever way that ends
        command = [
            *alone,
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=SIGKILL",
            "--mount-proc",
            "sh",
            "-c",
            script,
        ]
        self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        log.close()
        eventually(self._answers, every=0.02)

    def stop_sshd(self) -> None:
        """The whole machine goes down: everything in its pid namespace with it."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    stop = stop_sshd

    def cut_connections(self) -> None:
        """Ends every session of sshd, as when the line breaks; the listener stays."""
        for pid in self._sessions():
            _kill(pid)

    def cut_at(self, *patterns: str) -> None:
        """The line breaks at the first command that matches each of them: before it did its work, after it, in turns."""
        (self.scratch / "fault.json").write_text(json.dumps({"mode": "cut", "patterns": patterns}))

    def cut_at_each(self) -> None:
        """From now on the line breaks at every command that did not come before, whatever it is."""
        self._each("cut-each")

    def hold_each(self) -> None:
        """From now on every command that did not come before waits, until ``release`` or ``go_on``."""
        self._each("hold-each")

    def release(self) -> None:
        """The command that waits goes on; the next new one will wait as well."""
        (self.scratch / "held").unlink(missing_ok=True)

    def _each(self, mode: str) -> None:
        """What waits goes on, and counts as one that came before."""
        shutil.rmtree(self.scratch / "seen", ignore_errors=True)
        (self.scratch / "fault.json").write_text(json.dumps({"mode": mode}))
        (self.scratch / "held").unlink(missing_ok=True)

    def cuts(self) -> int:
        """How many commands the line broke at by now."""
        seen = self.scratch / "seen"
        return len(list(seen.iterdir())) if seen.exists() else 0

    def hold(self, pattern: str) -> None:
        """From now on the first command that matches waits, until ``go_on``."""
        (self.scratch / "held").unlink(missing_ok=True)
        (self.scratch / "fault.json").write_text(json.dumps({"mode": "hold", "pattern": pattern}))

    def held(self) -> str:
        """The command that waits; empty: none does."""
        path = self.scratch / "held"
        return path.read_text() if path.exists() else ""

    def go_on(self) -> None:
        (self.scratch / "fault.json").unlink(missing_ok=True)

    def status(self, unit: str) -> dict[str, str]:
        """What the kernel says of a service's process: its lines by name."""
        pid = (self.scratch / "pids" / unit).read_text().strip()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    lines = (entry / "status").read_text().splitlines()
                    inside = (entry / "ns/mnt").readlink() == self._namespace()
                except OSError:
                    continue
                found = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
                if inside and found["NSpid"].split()[-1] == pid:
                    return found
        raise AssertionError(f"{unit} does not run: {self.log(unit)[-2_000:]}")

    def accounts(self) -> dict[str, int]:
        """The host's users with their ids."""
        lines = Path(f"/proc/{self._init()}/root/etc/passwd").read_text().splitlines()
        return {line.split(":")[0]: int(line.split(":")[2]) for line in lines}

    def owner(self, absolute: str) -> str:
        """The user that a file of the host belongs to, and its mode."""
        state = self.path(absolute).lstat()
        (name,) = (name for name, uid in self.accounts().items() if uid == state.st_uid)
        return f"{name} {state.st_mode & 0o7777:o}"

    def files(self, directory: str) -> list[str]:
        return sorted(p.name for p in self.path(directory).iterdir())

    def log(self, name: str) -> str:
        path = self.scratch / "log" / name
        return path.read_text(errors="replace") if path.exists() else ""

    # -- inside

    def _sessions(self) -> list[int]:
        assert self._process is not None
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    inside = (entry / "ns/mnt").readlink() == self._namespace()
                except OSError:
                    continue
                if inside and line.startswith("sshd: ") and "[listener]" not in line:
                    found.append(int(entry.name))
        return found

    def _namespace(self) -> Path:
        """Of the machine: that of the one child of ``unshare``."""
        return Path(f"/proc/{self._init()}/ns/mnt").readlink()

    def _init(self) -> str:
        assert self._process is not None
        pid = self._process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log("sshd")[-2_000:]
        try:
            with socket.create_connection((self.address, 22), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _make_host_key(self, kind: str) -> None:
        if not (self.home / f"host_{kind}").exists():
            bits = ["-b", "2048"] if kind == "rsa" else []
            command = ["ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-f", str(self.home / f"host_{kind}")]
            subprocess.run(command, check=True)

    def _accounts(self) -> None:
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, check=True, capture_output=True, text=True
        ).stdout.strip()
        users = Path("/etc/passwd").read_text().splitlines()
        rest = [line for line in users if not line.startswith("root:")]
        nobody = f"{self.scratch}/home-deploy"
        (self.scratch / "home-deploy").mkdir(exist_ok=True)
        shell = f"{self.scratch}/bin/faulty" if self._faults else "/bin/sh"
        if self._rc:
            shell = f"{self.scratch}/bin/login-shell"
            Path(shell).write_text(f'#!/bin/sh\n{self._rc}\nexec /bin/sh "$@"\n')
            Path(shell).chmod(0o755)
        lines = [f"root:x:0:0:root:{self.home}:{shell}", *rest, f"deploy:x:1717:1717::{nobody}:/bin/sh"]
        (self.scratch / "passwd").write_text("\n".join(lines) + "\n")
        shadow = [f"root:{hashed}:19000:0:99999:7:::", f"deploy:{hashed}:19000:0:99999:7:::", "sshd:!:19000::::::"]
        (self.scratch / "shadow").write_text("\n".join(shadow) + "\n")


def _layer() -> str:
    """Mount points that the test machine lacks are made in memory, above its own directories; so are the host's accounts."""
    lacking = sorted({Path("/etc"), *(Path("/", d).parent for d in _OVER if not Path("/", d).is_dir())})
    commands = ["mount -t tmpfs over /dev/shm"]
    for number, parent in enumerate(lacking):
        upper, work = f"/dev/shm/u{number}", f"/dev/shm/w{number}"
        options = f"lowerdir={parent},upperdir={upper},workdir={work}"
        commands.append(f"mkdir -p {upper} {work}; mount -t overlay over -o {options} {parent}")
    return "; ".join(commands)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def agent_file(
    path: Path, *, version: str = "", dies: str = "", pad: int = 0, warm: bool = False, root: bool = False
) -> Path:
    """A ``node`` binary: the real agent of this checkout, with simulated clients, as a script.

    Args:
        path: where.
        version: what it says it is; default: that of the checkout.
        dies: ``run`` prints this and ends with 1.
        pad: bytes in all, at least.
        warm: for a ``Machine`` that is ``warm``.
        root: as existing ones and older ones of ours are, which do not know what they run as.
    """
    text = f"""\
        #!{sys.executable}
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        import coxswain
        coxswain.__version__ = {version!r} or coxswain.__version__
        if sys.argv[1:] in (["version"], ["--version"]):
            print(coxswain.__version__)
            sys.exit(0)
        if {root!r} and sys.argv[1:2] == ["runs-as"]:
            sys.exit("node: No such command 'runs-as'.")
        if sys.argv[1:2] == ["run"]:
            if {dies!r}:
                sys.exit("node: " + {dies!r})
            sys.argv += ["--data-plane", "simulated"]
        from coxswain.agent.main import main
        main()
        """
    shebang, _, rest = textwrap.dedent(text).partition("\n")
    if warm:
        path.write_text("#!/bin/sh\n" + LAUNCHER.replace("@VERSION@", version or "0.3.2"))
        with path.open("ab") as file:  # a shell reads no further than it runs
            file.write(os.urandom(max(0, pad - file.tell()) // 2).hex().encode())
        return path
    if not pad:
        path.write_text(f"{shebang}\n{rest}")
        return path
    with path.open("wb") as file:  # as a zipapp is: Python reads its directory, not all of it
        file.write(f"{shebang}\n".encode())
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("__main__.py", rest)
            archive.writestr("padding", os.urandom(pad // 2).hex())
    return path


def relay_file(path: Path, *, version: str = "0.4.0") -> Path:
    """``cox-relay``, which says it is of this version, and listens at the address in ``/etc/relay/address`` only: many hosts
    share the network of the tests.
    """
    text = f"""\
        #!{sys.executable}
        import os
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        import coxswain
        coxswain.__version__ = {version!r}
        if os.path.exists("/etc/relay/address"):
            host = open("/etc/relay/address").read().strip()
            sys.argv = [host + a if a.startswith(":") and a[1:].isdigit() else a for a in sys.argv]
        from coxswain.relay.main import main
        main()
        """
    path.write_text(textwrap.dedent(text))
    return path
