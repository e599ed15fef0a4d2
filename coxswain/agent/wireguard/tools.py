"""The two ways to drive an interface: AmneziaWG's own tools, or plain ones on a host that does not have them.

``AwgTools`` runs the command lines of node-contract.md 6.5, word for word. ``PlainTools`` does what ``awg-quick`` would
do with ``awg`` (or ``wg``) and ``ip``, on the kernel's interfaces or on a userspace program. It is for an agent that is not
root, which ``awg-quick`` insists on, where CAP_NET_ADMIN does for all of these; and for hosts without AmneziaWG, where the
interface speaks plain WireGuard and the status says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Protocol

from coxswain.agent.dataplane import DataPlaneFailed, PeerConfig
from coxswain.agent.wireguard.changes import Changes, as_shown, changes, read_settings
from coxswain.agent.wireguard.commands import Shell, ToolFailed, ToolMissing
from coxswain.agent.wireguard.conf import InterfaceBlock, render_peers, render_plain

__all__ = ["USERSPACE_VARIABLE", "AwgTools", "PlainTools", "Tools", "Turns", "choose"]

USERSPACE_VARIABLE = "WG_QUICK_USERSPACE_IMPLEMENTATION"
"""Names the userspace program, for us as for awg-quick (node-contract.md 6.5)."""

SHOW_TIMEOUT_S = 15.0
CHANGE_TIMEOUT_S = 120.0
"""awg-quick adds a route for each of possibly thousands of peers, one process each."""

_PEERS_PER_COMMAND = 1000
"""60 bytes each: far below what a command line may be long."""

Turns = defaultdict[str, asyncio.Lock]
"""By interface: it is either made or looked at. ``wg show`` removes the socket of a userspace program that is bound and
does not listen yet, and the program ends without it."""


class Tools(Protocol):
    """How interfaces are driven. All but ``is_up`` raise ``ToolFailed``; every method may raise ``ToolMissing``.

    ``note`` is for the status: what an operator should know of this way; empty: nothing.
    """

    @property
    def note(self) -> str: ...

    async def is_up(self, interface: str) -> bool: ...

    async def dump(self, interface: str) -> str:
        """Live state as text, with the private key in it."""
        ...

    async def up(self, conf: Path, block: InterfaceBlock, peers: tuple[PeerConfig, ...]) -> None:
        """Creates the interface that ``conf`` is named after; ``block`` and ``peers`` are its content."""
        ...

    async def reload(self, conf: Path, block: InterfaceBlock, peers: tuple[PeerConfig, ...]) -> None:
        """Makes a running interface what the conf says; sessions of peers that stay survive."""
        ...

    async def set_peer(
        self, interface: str, peer: PeerConfig, *, drop_psk: bool = False, keepalive: int | None = None
    ) -> None:
        """Adds or changes one peer.

        Args:
            drop_psk: it had a preshared key, and is to have none.
            keepalive: seconds between keepalives, 0: none; None leaves them as they are.
        """
        ...

    async def drop_preshared_key(self, interface: str, public_key: str) -> None:
        """Of a peer that keeps what else it has: addresses that are said again go to whom they are said of last."""
        ...

    async def remove_peer(self, interface: str, public_key: str) -> None: ...

    async def down(self, conf: Path) -> None:
        """An interface that is not there afterwards is success."""
        ...


class _Common:
    """What is the same for ``awg`` and ``wg``."""

    def __init__(self, shell: Shell, program: str) -> None:
        self._shell = shell
        self._program = program

    async def is_up(self, interface: str) -> bool:
        return (await self._shell(self._program, "show", interface, timeout=SHOW_TIMEOUT_S)).ok

    async def dump(self, interface: str) -> str:
        return (await self._shell(self._program, "show", interface, "dump", timeout=SHOW_TIMEOUT_S)).check().output

    async def set_peer(
        self, interface: str, peer: PeerConfig, *, drop_psk: bool = False, keepalive: int | None = None
    ) -> None:
        argv = [self._program, "set", interface, "peer", peer.public_key]
        stdin = None
        if peer.preshared_key or drop_psk:
            argv += ["preshared-key", "/dev/stdin"]
            stdin = f"{peer.preshared_key}\n" if peer.preshared_key else ""  # an empty file takes the key away
        if peer.endpoint:
            argv += ["endpoint", peer.endpoint]
        if keepalive is not None:
            argv += ["persistent-keepalive", str(keepalive)]
        argv += ["allowed-ips", ",".join(peer.allowed_ips)]
        (await self._shell(*argv, stdin=stdin)).check()

    async def drop_preshared_key(self, interface: str, public_key: str) -> None:
        argv = (self._program, "set", interface, "peer", public_key, "preshared-key", "/dev/stdin")
        (await self._shell(*argv, stdin="")).check()

    async def remove_peer(self, interface: str, public_key: str) -> None:
        (await self._shell(self._program, "set", interface, "peer", public_key, "remove")).check()

    async def _loosen_rp_filter(self, interface: str) -> None:
        """Best effort, as the contract has it."""
        for scope in ("all", interface):
            with contextlib.suppress(ToolMissing):
                await self._shell("sysctl", "-w", f"net.ipv4.conf.{scope}.rp_filter=0")


class AwgTools(_Common):
    """``awg`` and ``awg-quick``: node-contract.md 6.5."""

    note = ""

    def __init__(self, shell: Shell) -> None:
        super().__init__(shell, "awg")

    async def up(self, conf: Path, block: InterfaceBlock, peers: tuple[PeerConfig, ...]) -> None:  # noqa: ARG002 - it reads conf
        (await self._shell("awg-quick", "up", str(conf), timeout=CHANGE_TIMEOUT_S)).check()
        await self._loosen_rp_filter(conf.stem)

    async def reload(self, conf: Path, block: InterfaceBlock, peers: tuple[PeerConfig, ...]) -> None:  # noqa: ARG002 - it reads conf
        stripped = (await self._shell("awg-quick", "strip", str(conf))).check().output
        await self._sync(conf.stem, stripped)

    async def _sync(self, interface: str, stripped: str) -> None:
        (await self._shell("awg", "syncconf", interface, "/dev/stdin", stdin=stripped, timeout=CHANGE_TIMEOUT_S)).check()

    async def down(self, conf: Path) -> None:
        ended = await self._shell("awg-quick", "down", str(conf), timeout=CHANGE_TIMEOUT_S)
        if not ended.ok and await self.is_up(conf.stem):
            ended.check()


class PlainTools(_Common):
    """``awg`` without ``awg-quick``, or ``wg``; and ``ip``.

    Args:
        program: ``wg`` or ``awg``.
        userspace: programs to run an interface with if the kernel cannot, the first that is on PATH.
        turns: shared by all that use these interfaces.
    """

    def __init__(self, shell: Shell, program: str, userspace: tuple[str, ...], turns: Turns) -> None:
        super().__init__(shell, program)
        self._turns = turns
        self._obfuscated = program == "awg"
        self._userspace = userspace
        self.note = "" if self._obfuscated else "plain WireGuard: this host has no awg, obfuscation is not in force"

    async def is_up(self, interface: str) -> bool:
        async with self._turns[interface]:
            return await super().is_up(interface)

    async def dump(self, interface: str) -> str:
        async with self._turns[interface]:
            return await super().dump(interface)

    async def up(self, conf: Path, block: InterfaceBlock, peers: tuple[PeerConfig, ...]) -> None:
        interface = conf.stem
        async with self._turns[interface]:
            await self._create(interface)
        try:
            plain = render_plain(block, peers, obfuscated=self._obfuscated)
            (await self._shell(self._program, "setconf", interface, "/dev/stdin", stdin=plain)).check()
            (await self._shell("ip", "link", "set", "mtu", str(block.mtu), "up", "dev", interface)).check()
        except (ToolFailed, ToolMissing):
            await self._shell("ip", "link", "delete", "dev", interface)
            raise
        await self._loosen_rp_filter(interface)

    async def _create(self, interface: str) -> None:
        kind = "amneziawg" if self._obfuscated else "wireguard"
        added = await self._shell("ip", "link", "add", "dev", interface, "type", kind)
        if added.ok:
            return
        program = next((found for name in self._userspace if (found := shutil.which(name))), None)
        if program is None or "file exists" in added.said:
            added.check()
        # These would keep the program in the foreground, or our pipes open for as long as it lives.
        kept = {k: v for k, v in os.environ.items() if k not in {"WG_PROCESS_FOREGROUND", "LOG_LEVEL"}}
        (await self._shell(str(program), interface, environment=kept)).check()

    async def reload(self, conf: Path, block: InterfaceBlock, peers: tuple[PeerConfig, ...]) -> None:
        interface = conf.stem
        told = None if self._obfuscated else await self._changes(interface, block, peers)
        if told is None:
            plain = render_plain(block, peers, obfuscated=self._obfuscated)
            await self._take("syncconf", interface, plain)
            return
        for first in range(0, len(told.gone), _PEERS_PER_COMMAND):
            leaving = [word for key in told.gone[first : first + _PEERS_PER_COMMAND] for word in ("peer", key, "remove")]
            (await self._shell(self._program, "set", interface, *leaving, timeout=CHANGE_TIMEOUT_S)).check()
        if told.changed:
            await self._take("addconf", interface, render_peers(told.changed))

    async def _changes(self, interface: str, block: InterfaceBlock, peers: tuple[PeerConfig, ...]) -> Changes | None:
        """None: it has to be told everything."""
        shown = await self._shell(self._program, "show", interface, "dump", timeout=SHOW_TIMEOUT_S)
        live = read_settings(shown.output) if shown.ok else None
        with contextlib.suppress(ValueError, IndexError):  # the tool is to say what it does not take
            if live and (live.private_key, live.listen_port) == (as_shown(block.private_key), block.listen_port):
                return changes(live, peers)
        return None

    async def _take(self, how: str, interface: str, conf: str) -> None:
        (await self._shell(self._program, how, interface, "/dev/stdin", stdin=conf, timeout=CHANGE_TIMEOUT_S)).check()

    async def down(self, conf: Path) -> None:
        ended = await self._shell("ip", "link", "delete", "dev", conf.stem)
        if not ended.ok and await self.is_up(conf.stem):
            ended.check()


def choose(shell: Shell, turns: Turns) -> Tools:
    """What this host has, looked up each time: tools may be installed while the agent runs.

    Raises:
        DataPlaneFailed: neither ``awg`` nor ``wg`` is there.
    """
    named = os.environ.get(USERSPACE_VARIABLE)
    if shutil.which("awg"):
        if shutil.which("awg-quick") and os.geteuid() == 0:
            return AwgTools(shell)
        return PlainTools(shell, "awg", (named,) if named else ("amneziawg-go",), turns)
    if shutil.which("wg"):
        # amneziawg-go listens where wg does not look, so it is used only if it is asked for.
        return PlainTools(shell, "wg", (named,) if named else ("wireguard-go",), turns)
    raise DataPlaneFailed("neither awg nor wg is on PATH: install amneziawg-tools, or wireguard-tools for plain WireGuard")
