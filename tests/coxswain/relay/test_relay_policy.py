"""Where the controller lets a relay connect: whose word is taken, in what order, and what becomes of a file."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coxswain.errors import CoxswainError, Refused
from coxswain.pki import Role, issue_controller_leaf, issue_relay_service_leaf
from coxswain.relay.byte_stream import SocketStream
from coxswain.relay.contexts import Credentials, client_context
from coxswain.relay.policy import MOST_BYTES, PolicyFile, StalePolicy, TargetPolicy, read_policy
from coxswain.relay.stream_tls import tls_over
from coxswain.relay.yamux import Session
from tests.relays import Pki, key_pem, relay_program
from tests.support import eventually, free_port

LOG = logging.getLogger("relay")
HERE = "127.0.0.1"
PKI = Pki.make()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    PKI.write_relay(tmp_path)
    return tmp_path


def placed(directory: Path, serial: int, *targets: str) -> PolicyFile:
    (directory / "targets.policy").write_bytes(PKI.policy(HERE, serial, *targets))
    return PolicyFile(directory, LOG)


def allows(policy: PolicyFile, target: str) -> bool:
    host, _, port = target.rpartition(":")
    return policy.permits(host, host, int(port))


def test_what_the_controller_says_is_in_force_and_in_the_file(directory: Path) -> None:
    policy = placed(directory, 5, "192.0.2.1:1")
    assert allows(policy, "192.0.2.1:1") and not allows(policy, "192.0.2.1:2") and policy.serial == 5
    policy.accept(PKI.policy(HERE, 6, "192.0.2.1:2"))
    assert allows(policy, "192.0.2.1:2") and not allows(policy, "192.0.2.1:1")
    assert PolicyFile(directory, LOG).serial == 6
    assert (directory / "targets.policy").stat().st_mode & 0o777 == 0o600


def test_without_one_it_connects_where_it_is_asked_until_one_comes(directory: Path) -> None:
    """Under an existing controller (relay-contract.md 5.2, 6.3), and after a move to ours."""
    with pytest.raises(Refused, match=r"there is no .*cox relays renew"):
        PolicyFile(directory, LOG, needed=True)
    policy = PolicyFile(directory, LOG)
    for target in ("192.0.2.1:1", "127.0.0.1:22", "10.0.0.1:8444", "2001:db8::1:443"):
        assert allows(policy, target)
    for target in ("169.254.169.254:80", "::ffff:169.254.169.254:80", "fe80::1:80", "224.0.0.1:1"):
        assert not allows(policy, target)
    policy.accept(PKI.policy(HERE, 1, "192.0.2.1:1"))
    assert allows(policy, "192.0.2.1:1") and not allows(policy, "127.0.0.1:22") and policy.serial == 1
    (directory / "targets.policy").unlink()
    assert not allows(policy, "127.0.0.1:22")  # what is in force stays
    (directory / "targets.policy").write_bytes(PKI.policy(HERE, 2))
    assert not allows(PolicyFile(directory, LOG, needed=True), "192.0.2.1:1")


def test_an_older_one_is_not_taken_and_the_same_one_again_is_fine(directory: Path) -> None:
    policy = placed(directory, 5, "192.0.2.1:1")
    for serial in (4, 5):
        with pytest.raises(StalePolicy) as caught:
            policy.accept(PKI.policy(HERE, serial, "192.0.2.1:2"))
        assert caught.value.in_force == 5
    policy.accept(PKI.policy(HERE, 5, "192.0.2.1:1"))
    assert allows(policy, "192.0.2.1:1") and not allows(policy, "192.0.2.1:2")


def strangers() -> dict[str, bytes]:
    other = Pki.make()
    control = issue_controller_leaf(PKI.authorities[Role.CONTROL], time.time())
    service = issue_relay_service_leaf(PKI.fleet, (HERE,), time.time())
    grpc, grpc_key = PKI.grpc()
    assert control.key is not None and service.key is not None
    theirs = {
        "another fleet": other.controller(),
        "a relay of the fleet": PKI.relay(),
        "the leaf for nodes": Credentials(control.pem, key_pem(control.key), b""),
        "the leaf as a relay": Credentials(service.pem, key_pem(service.key), b""),
        "the leaf of AccountSync": Credentials(grpc.pem, grpc_key, b""),
        "a device": Credentials(*PKI.device(), b""),
        "the controller's certificate without its key": replace(PKI.controller(), key_pem=PKI.relay().key_pem),
    }
    return {who: PKI.policy(HERE, 9, "*", by=credentials) for who, credentials in theirs.items()}


@pytest.mark.parametrize(("who", "document"), strangers().items())
def test_nobody_elses_word_is_taken(directory: Path, who: str, document: bytes) -> None:
    policy = placed(directory, 5, "192.0.2.1:1")
    with pytest.raises(Refused, match="target policy"):
        policy.accept(document)
    (directory / "targets.policy").write_bytes(document)
    assert not allows(policy, "192.0.2.9:9"), who
    with pytest.raises(Refused, match="cox relays renew"):
        PolicyFile(directory, LOG)


def test_one_for_another_relay_or_changed_on_its_way_is_not_taken(directory: Path) -> None:
    policy = placed(directory, 5)
    with pytest.raises(Refused, match=r"is for '192\.0\.2\.7'"):
        policy.accept(PKI.policy("192.0.2.7", 6, "*"))
    good = json.loads(PKI.policy(HERE, 6, "192.0.2.1:1"))
    for change in (
        {"policy": good["policy"].replace("192.0.2.1", "192.0.2.2")}, {"policy": good["policy"].replace("6", "7")},
        {"signature": good["signature"][:-8] + "AAAAAAA="}, {"signature": "!"}, {"by": ""}, {"policy": None},
    ):  # fmt: skip
        with pytest.raises(Refused, match="target policy"):
            policy.accept(json.dumps(good | change).encode())
    for body in (
        "[]",
        "{}",
        '{"relay":"127.0.0.1","serial":-1,"targets":[]}',
        '{"relay":"127.0.0.1","serial":1,"targets":[1]}',
    ):
        with pytest.raises(Refused, match="target policy"):
            read_policy(json.dumps(good | {"policy": body}).encode(), PKI.fleet.pem, now=None)
    assert policy.serial == 5


def test_one_that_cannot_be_written_is_not_in_force(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = placed(directory, 5)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coxswain.relay.policy.write_whole", full)
    with pytest.raises(OSError, match="No space"):
        policy.accept(PKI.policy(HERE, 6, "192.0.2.1:1"))
    assert policy.serial == 5 and not allows(policy, "192.0.2.1:1")


def test_a_signer_whose_time_is_over_says_nothing_new_and_what_it_said_stays(directory: Path) -> None:
    document = PKI.policy(HERE, 6, "192.0.2.1:1")
    (directory / "targets.policy").write_bytes(PKI.policy(HERE, 5))
    later = PolicyFile(directory, LOG, now=lambda: time.time() + 800 * 86_400)
    with pytest.raises(Refused, match="clock"):
        later.accept(document)
    (directory / "targets.policy").write_bytes(document)
    assert allows(later, "192.0.2.1:1")


def test_a_file_that_changes_is_looked_at_again_and_only_a_newer_good_one_counts(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy, path = placed(directory, 5, "192.0.2.1:1"), directory / "targets.policy"
    for content in (b"", b"{", b"x" * (MOST_BYTES + 5), PKI.policy(HERE, 4, "*")):
        path.write_bytes(content)
        caplog.clear()
        for _ in range(3):
            assert allows(policy, "192.0.2.1:1") and not allows(policy, "192.0.2.2:1")
        assert [record.levelname for record in caplog.records] == ["WARNING"]  # once
    path.unlink()
    assert allows(policy, "192.0.2.1:1")
    path.write_bytes(PKI.policy(HERE, 5, "192.0.2.1:1"))
    assert allows(policy, "192.0.2.1:1")
    seen = path.stat()
    path.write_bytes(PKI.policy(HERE, 6, "192.0.2.2:1").ljust(seen.st_size))  # as SSH puts it there
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))  # or a backup that keeps times
    assert allows(policy, "192.0.2.2:1") and not allows(policy, "192.0.2.1:1")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_anything_may_come(document: bytes) -> None:
    for fuzzed in (document, b'{"policy": ' + document, b"[" * 100_000):
        with pytest.raises(CoxswainError):
            read_policy(fuzzed, PKI.fleet.pem, now=None)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40), st.integers(1, 2**63 - 1), st.lists(st.text(max_size=60), max_size=20))
def test_what_is_signed_is_read_as_it_was(relay: str, serial: int, targets: list[str]) -> None:
    document = PKI.policy(relay, serial, *targets)
    assert read_policy(document, PKI.fleet.pem, now=time.time()) == TargetPolicy(relay, serial, tuple(targets))


def test_a_running_relay_takes_policies_from_the_controller_alone_and_holds_to_them(directory: Path) -> None:
    """The program: what is allowed is dialled, what is not is closed in silence; forged and older ones change nothing."""
    (directory / "targets.policy").write_bytes(PKI.policy(HERE, 5))
    port = free_port()

    async def story(log: Callable[[], str]) -> None:
        server = await asyncio.start_server(_greet, HERE, 0)
        target = f"{HERE}:{server.sockets[0].getsockname()[1]}"
        over = await tls_over(
            SocketStream(*await asyncio.open_connection(HERE, port)), client_context(PKI.controller()), server_name=HERE
        )
        async with Session(over, client=True) as session:

            async def reached() -> bool:
                stream = await session.open_stream()
                await stream.write(f"{target}\n".encode())
                got = await stream.read()
                stream.close()
                return got == b"hello"

            async def said(document: bytes) -> str:
                stream = await session.open_stream()
                await stream.write(f"@targets {len(document)}\n".encode())
                answer = b""
                while part := await stream.read():
                    answer += part
                    if answer == b"go\n":
                        await stream.write(document)
                stream.close()
                return answer.decode().removeprefix("go\n")

            assert not await reached()
            assert await said(PKI.policy(HERE, 6, target)) == "ok\n" and await reached()
            assert (await said(PKI.policy(HERE, 9, by=PKI.relay()))).startswith("no ") and await reached()
            assert await said(PKI.policy(HERE, 5)) == "old 6\n" and await reached()
            assert (await said(b"x" * 100_000)).startswith("no ")
            assert await said(PKI.policy(HERE, 7)) == "ok\n" and not await reached()
            for line in ("@targets", "@targets x", f"@targets {MOST_BYTES + 1}", "@targets -1"):
                stream = await session.open_stream()
                await stream.write(f"{line}\n".encode())
                assert await stream.read() == b""
                stream.close()
        server.close()
        assert PolicyFile(directory, LOG).serial == 7
        eventually(lambda: "policy 7: 0 targets" in log())

    arguments = ("egress", "--tunnel-addr", f"{HERE}:{port}", "--config-dir", str(directory))
    with relay_program(*arguments) as (_, log):
        asyncio.run(asyncio.wait_for(story(log), 60))
        assert "Traceback" not in log()


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await writer.drain()
    writer.close()
