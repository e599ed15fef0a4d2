"""A controller on which everything can really be done: nodes whose links are live, machines with an sshd, the web door."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from coxswain.access import totp
from tests.file_server import serving
from tests.fleet import LiveFleet, live_fleet, peers_body
from tests.machines import Machine, agent_file, relay_file
from tests.mmdb import city, write_mmdb
from tests.support import eventually, free_port
from tests.web import Web

__all__ = ["ME", "World", "csr", "one_time_code", "served_database", "world"]

ME = pwd.getpwuid(os.getuid()).pw_name
OVER = ("done", "failed", "undone", "cancelled", "waiting")
_NUMBERS = itertools.count(1)
_ADDRESSES = itertools.count(60)


class World:
    """``fleet`` and what a story keeps in mind between its steps, by whatever names it gives."""

    def __init__(self, fleet: LiveFleet, home: Path) -> None:
        self.fleet = fleet
        self.home = home
        self.client = fleet.controller.client
        self.ids: dict[str, str] = {}
        self.webs: dict[str, Web] = {}
        self.door: tuple[str, ...] = ()
        self.actor = ME
        self.machines: list[Machine] = []

    def close(self) -> None:
        for machine in self.machines:
            machine.stop()

    # -- what was recorded

    def size(self) -> int:
        size: int = self.client.get("/api/audit/head")["size"]
        return size

    def recorded_since(self, size: int) -> list[dict[str, Any]]:
        """Records after the first ``size``, oldest first."""
        found = self.client.get(f"/api/audit?limit=1000&above={size}")
        return sorted((entry for entry in found if entry["seq"] > size), key=lambda entry: entry["seq"])

    # -- making what a step needs

    def machine(self) -> Machine:
        directory = self.home / f"host{next(_NUMBERS)}"
        directory.mkdir()
        machine = Machine(directory, f"127.0.4.{next(_ADDRESSES)}")
        machine.start()
        (machine.path("/etc/relay") / "address").write_text(machine.address)
        self.machines.append(machine)
        return machine

    def agent(self, version: str) -> str:
        return str(agent_file(self.home / f"agent{next(_NUMBERS)}", version=version))

    def relay(self, version: str = "0.4.0") -> str:
        return str(relay_file(self.home / f"relay{next(_NUMBERS)}", version=version))

    def device_on(self, *nodes: int) -> str:
        """A new device with peers on these nodes."""
        number = 1_000 + next(_NUMBERS)
        for place, index in enumerate(nodes):
            body = peers_body([self.fleet.ids[index]], 1, first=number)
            body["add"][0]["id"] = f"peer_{number}_{place}"
            self.client.post("/api/peers", body)
        return f"dev_{number}"

    def web(self) -> Web:
        return Web(self.fleet.controller.listen)

    def keep(self, name: str, made: Any) -> Any:
        """Keeps the id of what was made."""
        self.ids[name] = made["id"]
        return made

    def version(self, path: str) -> int:
        version: int = self.client.get(path)["version"]
        return version

    def over(self, operation_id: str) -> dict[str, Any]:
        """An operation, when it is over."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.client.get(f"/api/operations/{operation_id}")
            return found if found["state"] in OVER else None

        return eventually(look, timeout=60, every=0.05) or {}

    def begin_path(self, *, patience: int = 60) -> str:
        """The id of an operation that goes on and on, because a node refuses its part; see ``let_go``."""
        self.fleet.nodes.do("fail", node=0, method="ConfigureInnerLink", code="INTERNAL", times=10_000)
        body = {"name": f"stuck{next(_NUMBERS)}", "node_ids": ["n0", "n2"]}
        return str(self.client.begin(f"/api/paths?patience={patience}", body)["id"])

    def let_go(self) -> None:
        self.fleet.nodes.do("clear", node="all")

    def failed_operation(self) -> str:
        """The id of one that failed: at its address nobody listens."""
        body = {"ssh_host": f"127.0.4.{next(_ADDRESSES)}", "ssh_port": free_port(), "accept_new_host_key": True}
        return str(self.over(self.client.begin("/api/servers", body)["id"])["id"])


@contextmanager
def world(home: Path, base_port: int) -> Iterator[World]:
    """Three nodes, ``n0`` to ``n2``, with addresses."""
    home.chmod(0o755)  # sshd reads authorized_keys as the user that logs in
    config = "posture: personal\nstate_dir: ./state\n"
    with live_fleet(home, 3, base_port, config=config, web=True) as fleet:
        made = World(fleet, home)
        try:
            for index in range(3):
                version = made.version(f"/api/nodes/n{index}")
                body = {"version": version, "endpoint_ips": [f"203.0.113.{10 + index}"]}
                made.client.call("PATCH", f"/api/nodes/n{index}", body)
            fleet.controller.all_in_sync(3)
            yield made
        finally:
            made.close()


def csr() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def one_time_code(secret: str, now: float) -> str:
    """What an authenticator shows for a secret as it is displayed."""
    text = secret.replace(" ", "").upper()
    return totp.code_at(base64.b32decode(text + "=" * (-len(text) % 8)), int(now // 30))


@contextmanager
def served_database(directory: Path) -> Iterator[dict[str, str]]:
    """What ``geoip update`` has to be given for a small GeoIP database of a server of ours."""
    write_mmdb(directory / "served.mmdb", {"8.8.8.0/24": city(50.1, 8.7, "Frankfurt", "Germany", "DE")})
    content = (directory / "served.mmdb").read_bytes()
    with serving() as files:
        yield {"url": files.give("/city.mmdb", content), "sha256": hashlib.sha256(content).hexdigest()}
