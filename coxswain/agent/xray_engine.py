"""What runs a REALITY inbound: the seam between ``xray.py``, which knows what is configured, and a program that does it.

``XrayProcess`` drives an ``xray`` binary, if the host has one (node-contract.md 8.2 to 8.4). Like an engine inside the agent
it ends with it: on a clean stop, and by the kernel's parent-death signal on any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import shutil
import socket
from collections import deque
from typing import Any, Protocol

from coxswain.agent.dataplane import DataPlaneFailed
from coxswain.agent.redact import scrub
from coxswain.agent.state import XrayConfig
from coxswain.agent.wireguard.commands import Shell, memory_file

__all__ = ["BLOCKED", "XrayEngine", "XrayProcess", "render_xray"]

BLOCKED = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
    "::/127",
    "64:ff9b::/96",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)
"""Destinations that are the node's own, its neighbours' or its cloud's (node-contract.md 8.6; RFC 6890).

IPv4 addresses in IPv6 form need no entry, and xray takes none: to it they are IPv4 addresses.
"""

CHECK_TIMEOUT_S = 20.0
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 3.0
RESTART_S = (1.0, 60.0)
"""Seconds before a program that ended by itself is started again: the first time, and at most."""

_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_LAST_WORDS = 5
_LOOK_S = 0.05
_log = logging.getLogger(__name__)


class XrayEngine(Protocol):
    """Runs one instance at a time."""

    @property
    def running(self) -> bool: ...

    @property
    def trouble(self) -> str:
        """Why nothing runs although it should; empty: it runs, or nothing was asked for."""
        ...

    async def check(self, document: bytes, port: int) -> None:
        """Could this be run? Raises ``DataPlaneFailed``; what runs goes on."""
        ...

    async def swap(self, document: bytes, port: int) -> None:
        """Ends what runs and runs this. Raises ``DataPlaneFailed``, and then nothing runs."""
        ...

    async def stop(self) -> None: ...


def render_xray(config: XrayConfig, private_key: str) -> bytes:
    """The engine's configuration as JSON: node-contract.md 8.2, and nothing reaches the node's own networks (8.6).

    Names are looked up before rules are, and again when dialled, by the same resolver; one that has no address is refused.
    """
    reality = {
        "dest": config.dest,
        "serverNames": list(config.server_names),
        "privateKey": private_key,
        "shortIds": list(config.short_ids),
    }
    clients = [{"id": c.id, "flow": c.flow} if c.flow else {"id": c.id} for c in config.clients]
    document: dict[str, Any] = {
        # Who connects to what is nobody's business, the log's included.
        "log": {"access": "none", "loglevel": "warning"},
        "inbounds": [
            {
                "port": config.port,
                "protocol": "vless",
                "settings": {"clients": clients, "decryption": "none"},
                "streamSettings": {"network": "tcp", "security": "reality", "realitySettings": reality},
            }
        ],
        "outbounds": [
            {"tag": "out", "protocol": "freedom", "settings": {"domainStrategy": "ForceIP"}},
            {"tag": "blocked", "protocol": "blackhole"},
        ],
        "routing": {
            "domainStrategy": "IPOnDemand",
            "rules": [{"type": "field", "ip": list(BLOCKED), "outboundTag": "blocked"}],
        },
    }
    return json.dumps(document).encode()


class XrayProcess:
    """An ``xray`` binary. Args: ``shell`` runs short commands."""

    def __init__(self, shell: Shell) -> None:
        self.trouble = ""
        self._shell = shell
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._port = 0
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)

    @staticmethod
    def installed() -> bool:
        """Looked up each time: it may be installed while the agent runs."""
        return shutil.which("xray") is not None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def check(self, document: bytes, port: int) -> None:
        arguments = ("run", "-test", "-c", "stdin:")
        ended = await self._shell("xray", *arguments, stdin=document.decode(), timeout=CHECK_TIMEOUT_S)
        if not ended.ok:
            raise DataPlaneFailed(f"xray refuses the configuration: {_last(ended.output + ended.errors)}")
        if not (self.running and port == self._port):
            _refuse_taken(port)

    async def swap(self, document: bytes, port: int) -> None:
        await self.stop()
        self.trouble = "it was not started"
        try:
            process = await self._start(document, port)
        except DataPlaneFailed as failure:
            self.trouble = str(failure)
            raise
        self.trouble = ""
        self._keeper = asyncio.create_task(self._keep(process, document, port))

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._end(self._process)
        self._process = None
        self.trouble = ""

    # -- inside

    async def _start(self, document: bytes, port: int) -> asyncio.subprocess.Process:
        """Returns once it listens. Raises ``DataPlaneFailed``, with no process left."""
        _refuse_taken(port)
        # Without setpriv, one that outlives a killed agent holds the port until somebody ends it, and may do to the network
        # what the agent may. Root's capabilities are none that could be left out here.
        humble = ("--inh-caps", "-net_admin", "--ambient-caps", "-net_admin") if os.geteuid() else ()
        leash = ("setpriv", "--pdeathsig", "KILL", *humble, "--") if shutil.which("setpriv") else ()
        self._words.clear()
        try:
            with memory_file(document.decode()) as source:
                process = await asyncio.create_subprocess_exec(
                    *leash, "xray", "run", "-c", "stdin:",
                    stdin=source, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise DataPlaneFailed(f"xray: cannot be executed: {error.strerror}") from None
        listening = asyncio.create_task(self._listen(process))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while process.returncode is None:
                    if await _answers(port):
                        self._process, self._port = process, port
                        return process
                    await asyncio.wait([listening], timeout=_LOOK_S)
        except TimeoutError:
            await self._end(process)
        except BaseException:
            await self._end(process)
            raise
        await asyncio.wait([listening], timeout=1)
        raise DataPlaneFailed(f"xray does not serve on port {port}: {_last(chr(10).join(self._words))}")

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Its log, line by line, until its end."""
        stream = process.stdout
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the stream's limit
                continue
            if not line:
                break
            text = scrub(line.decode("utf-8", "replace").strip())
            self._words.append(text)
            _log.debug("xray: %s", text)
        await process.wait()

    async def _keep(self, process: asyncio.subprocess.Process, document: bytes, port: int) -> None:
        """Starts it again when it ends by itself."""
        pause, longest = RESTART_S
        while True:
            started = asyncio.get_running_loop().time()
            await process.wait()
            if asyncio.get_running_loop().time() - started > longest:
                pause = RESTART_S[0]
            self.trouble = f"ended with status {process.returncode}: {_last(chr(10).join(self._words))}"
            _log.warning("xray %s; starting it again in %g s", self.trouble, pause)
            while True:
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
                try:
                    process = await self._start(document, port)
                except DataPlaneFailed as failure:
                    self.trouble = str(failure)
                    _log.warning("%s", failure)
                else:
                    self.trouble = ""
                    break

    @staticmethod
    async def _end(process: asyncio.subprocess.Process | None) -> None:
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _refuse_taken(port: int) -> None:
    """A port that somebody else has is found out before what runs is ended."""
    for family, host in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):  # noqa: S104 - as the engine will
        try:
            with socket.socket(family, socket.SOCK_STREAM) as attempt:
                attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                attempt.bind((host, port))
        except OSError as error:
            if error.errno not in _NO_SUCH_FAMILY:
                raise DataPlaneFailed(f"port {port}: {error.strerror}") from None
        else:
            return


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _last(text: str) -> str:
    """What a tool said last, on one line and without key material."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return scrub(lines[-1])[-400:] if lines else "it said nothing"
