"""The agent's state files: names, modes and formats of node-contract.md 3.4, 6.1, 7.6 and 8.1.

``Files`` is where bytes go, a directory or memory; ``State`` is what they mean. A file is written beside its place,
synced, and renamed over it, so that a power cut leaves the old or the new content and nothing in between.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from coxswain.agent.dataplane import StoredPolicy
from coxswain.errors import LoosePermissions, Refused
from coxswain.netpolicy import Policy, Transit
from coxswain.ports import PortRange

__all__ = [
    "MALFORMED",
    "XRAY_CONFIG",
    "DirectoryFiles",
    "Files",
    "MemoryFiles",
    "State",
    "XrayClient",
    "XrayConfig",
    "refuse_loose",
]

AWG_REVISION = "awg-revision"
POLICY = "netpolicy.json"
XRAY_CONFIG = "xray-config.json"


MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What comes of reading a document of another shape than expected, or none at all."""


class Files(Protocol):
    """Small named files. ``write`` is durable when it returns. ``blocking``: calls may wait for a disk."""

    blocking: bool

    def read(self, name: str, *, secret: bool = False) -> bytes | None:
        """Returns the content, or None if there is no such file.

        Raises:
            LoosePermissions: ``secret``, and others than the owner may read or write it.
            OSError: it cannot be read.
        """
        ...

    def write(self, name: str, content: bytes, mode: int) -> None:
        """Replaces the file at once or not at all. Raises ``OSError``."""
        ...

    def delete(self, name: str) -> None:
        """An absent file is no error. Raises ``OSError``."""
        ...


class DirectoryFiles:
    """Files of one directory, which is made (0755) when first written to."""

    blocking = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, name: str, *, secret: bool = False) -> bytes | None:
        try:
            with (self.directory / name).open("rb") as file:
                if secret:
                    refuse_loose(name, os.fstat(file.fileno()).st_mode)
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes, mode: int) -> None:
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = self.directory / name
        beside = path.with_name(path.name + ".tmp")
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            os.fchmod(descriptor, mode)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(descriptor)
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        self._sync_directory()

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.directory / name).unlink()
            self._sync_directory()

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def refuse_loose(name: str, mode: int) -> None:
    """Raises ``LoosePermissions`` if others than the owner may do anything with a file of this mode."""
    if mode & 0o077:
        raise LoosePermissions(
            f"{name}: mode {mode & 0o777:04o} lets others at a key", remedy=f"chmod 600 {name}, and consider it known."
        )


class MemoryFiles:
    """Files that live as long as this object: one simulated node's disk."""

    blocking = False

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def read(self, name: str, *, secret: bool = False) -> bytes | None:  # noqa: ARG002 - nobody else reads memory
        return self.contents.get(name)

    def write(self, name: str, content: bytes, mode: int) -> None:  # noqa: ARG002 - memory has no modes
        self.contents[name] = content

    def delete(self, name: str) -> None:
        self.contents.pop(name, None)


@dataclass(frozen=True, slots=True)
class XrayClient:
    """One VLESS client."""

    id: str
    flow: str = ""


@dataclass(frozen=True, slots=True)
class XrayConfig:
    """The whole REALITY inbound (node-contract.md 1.3)."""

    port: int
    dest: str = ""
    server_names: tuple[str, ...] = ()
    short_ids: tuple[str, ...] = ()
    clients: tuple[XrayClient, ...] = ()


class State:
    """What the agent remembers between processes, by meaning. A file that cannot be understood is ``Refused``:
    never overwritten, because guessing a revision or forgetting teardown commands is worse than not starting.
    """

    def __init__(self, files: Files) -> None:
        self.files = files

    def awg_revision(self) -> int:
        """Last accepted PushConfig revision; 0: none."""
        return self._revision(AWG_REVISION)

    def set_awg_revision(self, revision: int) -> None:
        self.files.write(AWG_REVISION, f"{revision}\n".encode(), 0o644)

    def link_revision(self, interface: str) -> int:
        """Last accepted revision of one inner link; 0: none."""
        return self._revision(f"{interface}-revision")

    def set_link_revision(self, interface: str, revision: int) -> None:
        self.files.write(f"{interface}-revision", f"{revision}\n".encode(), 0o644)

    def forget_link(self, interface: str) -> None:
        self.files.delete(f"{interface}-revision")

    def policy(self) -> StoredPolicy | None:
        """The applied policy with its teardown commands; None: never set."""
        content = self.files.read(POLICY)
        if content is None:
            return None
        try:
            return _policy_from_json(json.loads(content))
        except MALFORMED as error:
            raise Refused(f"{POLICY}: cannot be understood: {error}", remedy=f"Repair or remove {POLICY}.") from None

    def set_policy(self, stored: StoredPolicy) -> None:
        self.files.write(POLICY, _json(_policy_to_json(stored)), 0o644)

    def xray(self) -> tuple[XrayConfig, int] | None:
        """The REALITY inbound and its revision; None: not configured. This file is ours alone (9.2)."""
        content = self.files.read(XRAY_CONFIG, secret=True)
        if content is None:
            return None
        try:
            found = json.loads(content)
            clients = tuple(XrayClient(str(c["id"]), str(c.get("flow", ""))) for c in found["clients"])
            names, shorts = tuple(map(str, found["server_names"])), tuple(map(str, found["short_ids"]))
            config = XrayConfig(int(found["port"]), str(found["dest"]), names, shorts, clients)
            return config, int(found["revision"])
        except MALFORMED as error:
            raise Refused(f"{XRAY_CONFIG}: cannot be understood: {error}") from None

    def set_xray(self, config: XrayConfig, revision: int) -> None:
        clients = [{"id": c.id, "flow": c.flow} if c.flow else {"id": c.id} for c in config.clients]
        content = {
            "revision": revision,
            "port": config.port,
            "dest": config.dest,
            "server_names": list(config.server_names),
            "short_ids": list(config.short_ids),
            "clients": clients,
        }
        self.files.write(XRAY_CONFIG, _json(content), 0o600)  # client ids are credentials

    def _revision(self, name: str) -> int:
        content = self.files.read(name)
        if content is None:
            return 0
        try:
            return int(content.strip() or b"0")
        except ValueError:
            raise Refused(f"{name}: holds no revision", remedy=f"Repair or remove {name}.") from None


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _policy_to_json(stored: StoredPolicy) -> dict[str, Any]:
    policy = stored.policy
    transits = [
        {"DeviceCIDR": t.device_cidr, "InnerInterface": t.inner_interface, "Mark": t.mark, "Table": t.table}
        for t in policy.transits
    ]
    return {
        "policy": {
            "Forwarding": policy.forwarding,
            "Masquerade": policy.masquerade,
            "Isolation": policy.isolation,
            "Transits": transits or None,
            # Ours: another agent passes over it, and forgets it with its first write.
            **({"EndpointPorts": [policy.ports.low, policy.ports.high]} if policy.ports is not None else {}),
        },
        "down": [list(argv) for argv in stored.down] or None,
    }


def _policy_from_json(found: dict[str, Any]) -> StoredPolicy:
    policy = found["policy"]
    transits = tuple(
        Transit(str(t["DeviceCIDR"]), str(t["InnerInterface"]), int(t["Mark"]), int(t["Table"]))
        for t in policy.get("Transits") or ()
    )
    forwarding, masquerade, isolation = (bool(policy.get(n, False)) for n in ("Forwarding", "Masquerade", "Isolation"))
    down = tuple(tuple(str(word) for word in argv) for argv in found.get("down") or ())
    low, high = map(int, policy.get("EndpointPorts") or (0, 0))
    ports = PortRange(low, high) if low or high else None
    return StoredPolicy(Policy(forwarding, masquerade, isolation, transits, ports), down)
