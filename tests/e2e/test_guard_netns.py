"""Who reaches a control port behind the rules that onboarding puts on a host: real packets, a real firewall."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from coxswain.onboarding.guard import guard_rules
from tests.netns import Lab, Namespace
from tests.support import eventually

PORT = 8444


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as made:
        yield made


def reaches(space: Namespace, address: str, port: int = PORT) -> bool:
    def attempt() -> bool:
        try:
            socket.create_connection((address, port), timeout=0.7).close()
        except OSError:
            return False
        return True

    return space.call(attempt)


def listen(host: Namespace, *ports: int) -> None:
    for port in ports:
        host.spawn(["python3", "-m", "http.server", str(port), "--bind", "::"])
        eventually(lambda port=port: reaches(host, "127.0.0.1", port))


def load(host: Namespace, rules: str) -> None:
    host.run("nft", "-f", "-", stdin=rules)


def test_the_control_port_is_reached_from_where_it_is_said_and_nothing_else_is_touched(lab: Lab) -> None:
    host, ours, stranger = (lab.namespace(name) for name in ("host", "ours", "stranger"))
    lab.join(ours, "192.0.2.2/24", host, "192.0.2.1/24")
    near, far = lab.join(stranger, "198.51.100.2/24", host, "198.51.100.1/24")
    for space, name, address in ((stranger, near, "2001:db8::2/64"), (host, far, "2001:db8::1/64")):
        space.run("ip", "address", "add", address, "dev", name, "nodad")
    listen(host, PORT, 22)

    load(host, guard_rules(PORT, ["192.0.2.0/24"]))
    assert reaches(ours, "192.0.2.1")
    assert not reaches(stranger, "198.51.100.1")
    assert not reaches(stranger, "2001:db8::1"), "no address of its family is allowed"
    assert reaches(stranger, "198.51.100.1", 22), "SSH is not touched"
    assert reaches(host, "198.51.100.1") and reaches(host, "127.0.0.1"), "the host itself gets in"

    load(host, guard_rules(PORT, ["198.51.100.2", "2001:db8::2"]))
    assert not reaches(ours, "192.0.2.1"), "the rules from before are gone"
    assert reaches(stranger, "198.51.100.1") and reaches(stranger, "2001:db8::1")
    load(host, guard_rules(PORT, ["198.51.100.2", "2001:db8::2"]))
    assert host.run("nft", "list", "ruleset").stdout.count("drop") == 1, "once, however often they are loaded"
