"""AccountSync as relays see it, on both backends: who may speak, every status code, races, floods, crashes."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from actors.accounts.server import SyncServer
from actors.supervision import Harm
from coxswain.access.passwords import hash_password
from coxswain.accounts.keyblob import unwrap_key, wrap_key
from coxswain.accounts.primitives import x25519_public_key
from coxswain.accounts.sealed import open_sealed, read_sealed
from coxswain.alerts.claim_rules import link_reused
from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.settings import RuleSettings
from coxswain.errors import CoxswainError
from coxswain.pki import Role, device_fingerprint, issue_device_leaf, issue_node_leaf
from coxswain.statedir import ACCOUNT_SYNC_SOCKET
from coxswain.store import alert_reads as reads
from coxswain.store import pki as pki_rows
from coxswain.wire.pharos.account.v1 import account_pb2 as pb
from tests.caravel import Caravel, RelayLeg, claim_request, pem_of, relay_leg
from tests.fleet import Controller, lone_controller
from tests.support import eventually

Code = grpc.StatusCode
_numbers = itertools.count(1)
CONFIG = """
posture: personal
state_dir: ./state
relay: {public_endpoint: 'relay.example:8443'}
accounts: {legacy_login: true}
"""
NO_CSR = b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def running(request: pytest.FixtureRequest) -> Iterator[Controller]:
    database = request.getfixturevalue("postgres_server").create_database() if request.param == "postgres" else ""
    with lone_controller(config=CONFIG, database=database) as controller:
        yield controller


@pytest.fixture
def leg(running: Controller) -> Iterator[RelayLeg]:
    """Another relay for each test, and nobody has tried anything: what one of them may try, the next has not tried yet."""
    accounts: Any = running.system.directory.find("accounts")
    for everybodys in (accounts._state.refusals, accounts._state.passwords):
        everybodys._levels.clear()
    made = relay_leg(running)
    yield made
    made.close()


@pytest.fixture
def user(running: Controller) -> dict[str, Any]:
    number = next(_numbers)
    made: dict[str, Any] = running.client.post("/api/users", {"name": "Ann", "email": f"ann{number}@example.org"})
    return made


def invite(running: Controller, user: dict[str, Any], **body: Any) -> str:
    return str(running.client.post(f"/api/users/{user['id']}/invite", body)["url"])


def token_of(url: str) -> str:
    return url.rpartition("token=")[2]


def refused(code: grpc.StatusCode, act: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        act()
    error: Any = caught.value
    assert error.code() is code, (error.code(), error.details())
    return str(error.details())


# -- who may speak (relay-contract.md 1.3, L3)


def other_leg(running: Controller, kind: str) -> RelayLeg:
    with running.store.read() as tx:
        authorities = pki_rows.load_authorities(tx, running.keyring)
        controller = pki_rows.newest_controller_leaf(tx, running.keyring)
    key, now = ec.generate_private_key(ec.SECP256R1()), running.system.clock.now()
    chain = b""
    if kind == "node":
        chain = issue_node_leaf(authorities[Role.FLEET], key.public_key(), "10.0.0.1", now).pem
    elif kind == "device":
        chain = issue_device_leaf(authorities[Role.DEVICE], key.public_key(), "PharosVPN Relay", now).pem
    elif kind == "controller":
        assert controller is not None and controller.key is not None
        key, chain = controller.key, controller.pem + authorities[Role.CONTROL].pem
    elif kind == "own":  # a relay's name, and a CA of its own
        from coxswain.pki import create_authorities, issue_relay_leaf  # noqa: PLC0415

        chain = issue_relay_leaf(create_authorities(now)[Role.FLEET], key.public_key(), "relay.example", now).pem
    path = running.home / ACCOUNT_SYNC_SOCKET
    return RelayLeg(path, authorities[Role.FLEET].pem, chain, pem_of(key) if chain else b"")


@pytest.mark.parametrize("kind", ["nobody", "node", "device", "controller", "own"])
def test_only_relays_may_speak(running: Controller, user: dict[str, Any], kind: str) -> None:
    device = Caravel()
    url = invite(running, user)
    stranger = other_leg(running, kind)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            stranger.raw("ClaimEnrollment", claim_request(token_of(url), device), ready=False)
        error: Any = caught.value
        assert error.code() in (Code.UNAVAILABLE, Code.UNAUTHENTICATED)
    finally:
        stranger.close()
    (ticket,) = running.client.get(f"/api/users/{user['id']}/invites")
    assert ticket["used_at"] is None


def test_a_relay_that_was_removed_may_not_either(running: Controller, user: dict[str, Any]) -> None:
    with contextlib.closing(relay_leg(running, "ferry")) as leg:
        Caravel().enroll(leg, invite(running, user))
        assert running.client.get("/api/audit?action=enroll.claim&limit=1")[0]["detail"]["relay"] == "ferry"
        relay = next(r["id"] for r in running.client.get("/api/relays") if r["name"] == "ferry")
        with running.store.write() as tx:
            tx.execute("UPDATE relay_certs SET revoked_at = 1 WHERE relay_id = ?", (relay,))
        refused(Code.UNAUTHENTICATED, lambda: Caravel().enroll(leg, invite(running, user)))
        with running.store.write() as tx:
            tx.execute("UPDATE relay_certs SET revoked_at = NULL WHERE relay_id = ?", (relay,))
        Caravel().enroll(leg, invite(running, user))
        running.client.call("DELETE", f"/api/relays/{relay}")
        assert "removed" in refused(Code.UNAUTHENTICATED, lambda: Caravel().enroll(leg, invite(running, user)))


def test_nor_may_one_with_a_certificate_that_nobody_knows_of(running: Controller, user: dict[str, Any]) -> None:
    """As of a relay that was renewed after the backup that was restored: perhaps it was removed since."""
    with contextlib.closing(relay_leg(running, known=False)) as leg:
        assert "cox doctor" in refused(Code.UNAUTHENTICATED, lambda: Caravel().enroll(leg, invite(running, user)))


def test_a_fingerprint_that_came_twice_counts_for_nobody(running: Controller, user: dict[str, Any], leg: RelayLeg) -> None:
    one, two = Caravel(), Caravel()
    for device in (one, two):
        device.enroll(leg, invite(running, user))
    assert one.identity is not None and two.identity is not None
    prints = [("x-pharos-device-fp", device_fingerprint(d.identity.device_cert.encode())) for d in (one, two) if d.identity]
    refused(Code.UNAUTHENTICATED, lambda: leg.raw("GetProfile", pb.GetProfileRequest(), prints))


def test_nothing_is_ever_compressed(running: Controller, user: dict[str, Any], leg: RelayLeg) -> None:
    """A relay cannot read it, and passes on that a device could (relay-contract.md 1.6)."""
    device = Caravel()
    device.enroll(leg, invite(running, user))
    assert device.identity is not None
    metadata = [
        ("x-pharos-device-fp", device_fingerprint(device.identity.device_cert.encode())),
        ("grpc-accept-encoding", "identity, deflate, gzip"),
    ]
    call = leg._channel.unary_unary(
        "/pharos.account.v1.AccountSync/GetProfile", lambda message: message.SerializeToString(), bytes
    )
    _, details = call.with_call(pb.GetProfileRequest(), metadata=metadata, timeout=10)
    assert dict(details.initial_metadata()).get("grpc-encoding", "identity") == "identity"


# -- status codes (accounts-profiles.md 2.4, 5.4)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (Code.INVALID_ARGUMENT, {"token": ""}),
        (Code.INVALID_ARGUMENT, {"token": "x" * 300}),
        (Code.INVALID_ARGUMENT, {"csr_pem": b""}),
        (Code.INVALID_ARGUMENT, {"csr_pem": NO_CSR}),
        (Code.INVALID_ARGUMENT, {"csr_pem": b"x" * 20_000}),
        (Code.INVALID_ARGUMENT, {"encryption_pubkey": b""}),
        (Code.INVALID_ARGUMENT, {"encryption_pubkey": b"\x01" * 31}),
        (Code.INVALID_ARGUMENT, {"encryption_pubkey": bytes(32)}),
        (Code.UNAUTHENTICATED, {"token": "A" * 43}),
        (Code.RESOURCE_EXHAUSTED, {"csr_pem": b"x" * 300_000}),
    ],
)
def test_a_claim_that_is_refused_burns_nothing(
    running: Controller, user: dict[str, Any], leg: RelayLeg, code: grpc.StatusCode, change: dict[str, Any]
) -> None:
    url, device = invite(running, user), Caravel()
    request = claim_request(change.get("token", token_of(url)), device, **{k: v for k, v in change.items() if k != "token"})
    text = refused(code, lambda: leg.call("ClaimEnrollment", request))
    assert token_of(url) not in text
    assert running.client.get(f"/api/users/{user['id']}/devices") == []
    device.enroll(leg, url)


def test_tickets_that_are_no_good_are_not_told_apart(running: Controller, user: dict[str, Any], leg: RelayLeg) -> None:
    used, revoked, expired = (invite(running, user) for _ in range(3))
    Caravel().enroll(leg, used)
    newest = running.client.get(f"/api/users/{user['id']}/invites")
    running.client.call("DELETE", f"/api/invites/{newest[1]['id']}")
    with running.store.write() as tx:
        tx.execute("UPDATE enrollment_tickets SET expires_at = 1 WHERE id = ?", (newest[0]["id"],))
    texts = {
        refused(Code.UNAUTHENTICATED, lambda url=url: Caravel().claim(leg, url))
        for url in (used, revoked, expired, used[:-4] + "AAAA")
    }
    assert len(texts) == 1

    def tried_again() -> list[Finding]:
        with running.store.read() as tx:
            return list(link_reused(reads.claim_facts(tx, 0.0), RuleSettings()))

    ticket = newest[2]["id"]
    told = eventually(lambda: [one for one in tried_again() if one.detail["ticket_id"] == ticket])
    assert [(one.user_id, one.severity, one.detail["tries_after"]) for one in told] == [(user["id"], Severity.INFO, 1)]
    others = {newest[0]["id"], newest[1]["id"]}
    assert not others & {one.detail["ticket_id"] for one in tried_again()}, "nobody is in by a link that is no good"


def test_a_link_that_made_a_device_is_void_once_another_one_bound_it_anew(
    running: Controller, user: dict[str, Any], leg: RelayLeg
) -> None:
    """Also before whoever has it now fetches anything: the old link may be with whom the device was taken from."""
    first = invite(running, user)
    Caravel().enroll(leg, first)
    (device,) = running.client.get(f"/api/users/{user['id']}/devices")
    second = invite(running, user, device_id=device["id"])
    Caravel().claim(leg, second)
    refused(Code.UNAUTHENTICATED, lambda: Caravel().claim(leg, first))
    Caravel().enroll(leg, second)  # its client kept nothing of the first time


def test_sessions_end_with_the_certificate_that_they_were_begun_with(
    running: Controller, user: dict[str, Any], leg: RelayLeg
) -> None:
    """Whoever has the device that was replaced would fetch, and its successor could not claim its link once more."""
    old = Caravel()
    old.enroll(leg, invite(running, user))
    assert old.identity is not None
    leaf = old.identity.device_cert.encode()
    session = leg.call("Authenticate", pb.AuthenticateRequest(), certificate=leaf).session_token
    (device,) = running.client.get(f"/api/users/{user['id']}/devices")
    Caravel().claim(leg, invite(running, user, device_id=device["id"]))
    refused(Code.UNAUTHENTICATED, lambda: leg.call("GetProfile", pb.GetProfileRequest(), session=session))
    assert running.client.get(f"/api/devices/{device['id']}")["identity"]["last_sync_at"] is None


def test_a_claim_without_names_has_some_and_long_ones_are_cut(
    running: Controller, user: dict[str, Any], leg: RelayLeg
) -> None:
    for name, wanted in (("", "caravel device"), ("ü" * 80, "ü" * 32), ("a\nb\x00c", "a b c"), ("  ", "caravel device")):
        request = claim_request(token_of(invite(running, user)), Caravel(), device_name=name, platform="")
        leg.call("ClaimEnrollment", request)
        made = running.client.get(f"/api/users/{user['id']}/devices")[-1]
        assert (made["name"], made["platform"]) == (wanted, "caravel")


def test_who_has_neither_certificate_nor_session(running: Controller, leg: RelayLeg) -> None:
    assert running.listen == ""
    refused(Code.UNAUTHENTICATED, lambda: leg.call("Authenticate", pb.AuthenticateRequest()))
    refused(Code.UNAUTHENTICATED, lambda: leg.call("GetProfile", pb.GetProfileRequest()))
    refused(Code.UNAUTHENTICATED, lambda: leg.call("GetProfile", pb.GetProfileRequest(), session="x" * 43))
    keys = pb.EnrollKeysRequest(public_key=b"\x01" * 32, wrapped_private_key=b"x")
    refused(Code.UNAUTHENTICATED, lambda: leg.call("EnrollKeys", keys))
    for fingerprint in ("", "sha256:" + "0" * 64, "nonsense", "sha256:" + "A" * 64):
        metadata = [("x-pharos-device-fp", fingerprint)]
        refused(Code.UNAUTHENTICATED, lambda m=metadata: leg.raw("Authenticate", pb.AuthenticateRequest(), m))


def test_a_method_that_there_is_not(running: Controller, leg: RelayLeg) -> None:
    assert running.listen == ""
    call = leg._channel.unary_unary("/pharos.account.v1.AccountSync/Nope", bytes, bytes)
    refused(Code.UNIMPLEMENTED, lambda: call(b"", timeout=10))


def test_bytes_that_are_no_message(running: Controller, user: dict[str, Any], leg: RelayLeg) -> None:
    with pytest.raises(grpc.RpcError):
        leg.raw("ClaimEnrollment", b"\xff" * 100)
    Caravel().enroll(leg, invite(running, user))


def test_a_session_is_for_its_device_and_for_ten_minutes(running: Controller, user: dict[str, Any], leg: RelayLeg) -> None:
    device = Caravel()
    device.enroll(leg, invite(running, user))
    assert device.identity is not None
    leaf = device.identity.device_cert.encode()
    session = leg.call("Authenticate", pb.AuthenticateRequest(), certificate=leaf).session_token
    assert leg.call("GetProfile", pb.GetProfileRequest(), session=session).revision == device.revision
    with running.store.read() as tx:
        assert session not in str(tx.execute("SELECT token_hash FROM account_sessions"))
        ((left,),) = tx.execute(
            "SELECT max(expires_at) - max(created_at) FROM account_sessions WHERE user_id = ?", (user["id"],)
        )
        assert left == 600_000_000
    with running.store.write() as tx:
        tx.execute("UPDATE account_sessions SET expires_at = 1 WHERE user_id = ?", (user["id"],))
    refused(Code.UNAUTHENTICATED, lambda: leg.call("GetProfile", pb.GetProfileRequest(), session=session))


def test_a_bundle_larger_than_clients_take_is_refused(
    running: Controller, user: dict[str, Any], leg: RelayLeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.fleet.bundles.MAX_DOCUMENT_BYTES", 100)
    url = invite(running, user)
    refused(Code.FAILED_PRECONDITION, lambda: Caravel().claim(leg, url))
    monkeypatch.undo()
    Caravel().enroll(leg, url)


# -- accounts that have a password


@pytest.fixture
def member(running: Controller, user: dict[str, Any]) -> dict[str, Any]:
    with running.store.write() as tx:
        tx.execute("UPDATE users SET password_hash = ? WHERE id = ?", (hash_password("correct horse"), user["id"]))
    return user


def login(leg: RelayLeg, email: str, password: str) -> pb.AuthenticateResponse:
    answer: pb.AuthenticateResponse = leg.call("Authenticate", pb.AuthenticateRequest(email=email, password=password))
    return answer


def test_a_legacy_device_from_its_account_to_its_profile(running: Controller, member: dict[str, Any], leg: RelayLeg) -> None:
    device = Caravel()
    identity = device.claim(leg, invite(running, member))
    leaf = identity.device_cert.encode()
    with running.store.write() as tx:
        tx.execute("UPDATE device_identities SET encryption_pubkey = NULL")
    refused(Code.NOT_FOUND, lambda: leg.call("GetProfile", pb.GetProfileRequest(), certificate=leaf))
    session = login(leg, member["email"].upper(), "correct horse")
    assert session.user_id == member["id"] and not session.keys_enrolled
    refused(Code.NOT_FOUND, lambda: leg.call("GetProfile", pb.GetProfileRequest(), session=session.session_token))
    private = b"\x05" * 32
    keys = pb.EnrollKeysRequest(
        public_key=x25519_public_key(private), wrapped_private_key=wrap_key(private, "correct horse")
    )
    for bad in (
        pb.EnrollKeysRequest(public_key=b"short", wrapped_private_key=keys.wrapped_private_key),
        pb.EnrollKeysRequest(public_key=keys.public_key),
        pb.EnrollKeysRequest(public_key=keys.public_key, wrapped_private_key=b"x" * 5_000),
    ):
        refused(Code.INVALID_ARGUMENT, lambda bad=bad: leg.call("EnrollKeys", bad, session=session.session_token))
    leg.call("EnrollKeys", keys, session=session.session_token)
    assert "not overwritten" in refused(
        Code.ALREADY_EXISTS, lambda: leg.call("EnrollKeys", keys, session=session.session_token)
    )
    assert running.client.get("/api/audit?action=user.keys&limit=1")[0]["target_id"] == member["id"]
    assert login(leg, member["email"], "correct horse").keys_enrolled
    found = leg.call("GetProfile", pb.GetProfileRequest(), certificate=leaf)
    key = unwrap_key(found.wrapped_private_key, "correct horse")
    assert open_sealed(read_sealed(found.ciphertext), key, found.signing_public_key)


def test_passwords_that_are_not_right(running: Controller, member: dict[str, Any], leg: RelayLeg) -> None:
    texts = {
        refused(Code.UNAUTHENTICATED, lambda e=email, p=password: login(leg, e, p))
        for email, password in (
            (member["email"], "wrong"),
            ("nobody@example.org", "correct horse"),
            (member["id"], "correct horse"),
            ("admin", "correct horse"),
            ("\x00@example.org", "correct\x00horse"),
            ("x" * 5_000, "y" * 5_000),
        )
    }
    assert len(texts) == 1
    found = eventually(lambda: running.client.get(f"/api/audit?action=account.login_failed&actor={member['id']}"))
    assert found[0]["target_id"] == member["id"] and "wrong" in found[0]["error"]
    login(leg, member["email"], "correct horse")
    running.client.post(f"/api/users/{member['id']}/suspend")
    assert refused(Code.UNAUTHENTICATED, lambda: login(leg, member["email"], "correct horse")) in texts


def test_guesses_are_throttled_whichever_relay_they_come_through(
    running: Controller, member: dict[str, Any], leg: RelayLeg
) -> None:
    for _ in range(5):
        refused(Code.UNAUTHENTICATED, lambda: login(leg, member["email"], "wrong"))
    other = relay_leg(running)
    try:
        refused(Code.RESOURCE_EXHAUSTED, lambda: login(other, member["email"], "correct horse"))
    finally:
        other.close()


def test_without_it_being_switched_on_no_password_is_looked_at(controller_without_legacy: Controller) -> None:
    leg = relay_leg(controller_without_legacy)
    try:
        made = controller_without_legacy.client.post("/api/users", {"name": "Ann", "email": "ann@example.org"})
        refused(Code.UNAUTHENTICATED, lambda: login(leg, "ann@example.org", "whatever"))
        device = Caravel()
        url = str(controller_without_legacy.client.post(f"/api/users/{made['id']}/invite", {"relay": "r:1"})["url"])
        device.enroll(leg, url)
        assert device.identity is not None and device.identity.relay_addr == "r:1"
        keys = pb.EnrollKeysRequest(public_key=b"\x01" * 32, wrapped_private_key=b"x")
        leaf = device.identity.device_cert.encode()
        refused(Code.PERMISSION_DENIED, lambda: leg.call("EnrollKeys", keys, certificate=leaf))
    finally:
        leg.close()


@pytest.fixture
def controller_without_legacy(tmp_path: Path) -> Iterator[Controller]:
    with lone_controller() as made:
        yield made
    assert list(tmp_path.iterdir()) == []


# -- races, floods, crashes


def test_of_many_who_claim_at_once_one_is_let_in(running: Controller, user: dict[str, Any], leg: RelayLeg) -> None:
    """And may be replaced once, as long as it has fetched nothing: two at most, one after the other, on one device."""
    url = invite(running, user)
    devices = [Caravel(f"d{n}") for n in range(12)]
    won: list[str] = []

    def claim(device: Caravel) -> None:
        try:
            device.claim(leg, url)
        except grpc.RpcError:
            return
        won.append(device.name)

    threads = [threading.Thread(target=claim, args=(device,)) for device in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(won) <= 2
    assert len(running.client.get(f"/api/users/{user['id']}/devices")) == 1
    with running.store.read() as tx:
        ((count,),) = tx.execute(
            "SELECT count(*) FROM device_identities i JOIN devices d ON d.id = i.device_id WHERE d.user_id = ?",
            (user["id"],),
        )
    assert count == 1


def test_a_flood_of_claims_is_turned_away_and_hardly_recorded(
    running: Controller, user: dict[str, Any], leg: RelayLeg
) -> None:
    before = running.client.get("/api/audit/head")["size"]
    codes = []
    for number in range(60):
        with pytest.raises(grpc.RpcError) as caught:
            leg.call("ClaimEnrollment", claim_request(f"{number:043d}", Caravel()))
        error: Any = caught.value
        codes.append(error.code())
    assert codes[0] is Code.UNAUTHENTICATED and Code.RESOURCE_EXHAUSTED in codes[-3:], "every three seconds one is let in"
    assert running.client.get("/api/audit/head")["size"] - before <= 35
    Caravel().enroll(leg, invite(running, user))  # nobody guesses a ticket: who has one is let in all the same
    other = relay_leg(running)  # who comes through another relay is not kept waiting
    try:
        Caravel().enroll(other, invite(running, user))
    finally:
        other.close()


def test_who_has_a_ticket_cannot_flood_with_it_either(running: Controller, user: dict[str, Any], leg: RelayLeg) -> None:
    token, codes = token_of(invite(running, user)), []
    for number in range(60):
        with pytest.raises(grpc.RpcError) as caught:
            leg.call("ClaimEnrollment", claim_request(f"{number:043d}", Caravel()))
    for _ in range(20):
        with pytest.raises(grpc.RpcError) as caught:
            leg.call("ClaimEnrollment", claim_request(token, Caravel(), csr_pem=b"none"))
        error: Any = caught.value
        codes.append(error.code())
    assert codes[0] is Code.INVALID_ARGUMENT and Code.RESOURCE_EXHAUSTED in codes[-3:], "every three seconds one is let in"


def test_a_device_that_asks_every_other_second_is_served(running: Controller, user: dict[str, Any], leg: RelayLeg) -> None:
    """A client that waits for a change of its profile."""
    device = Caravel()
    device.enroll(leg, invite(running, user))
    for _ in range(40):
        device.sync(leg)


def test_a_device_that_syncs_without_a_pause_is_slowed_down(
    running: Controller, user: dict[str, Any], leg: RelayLeg
) -> None:
    device, other = Caravel(), Caravel()
    device.enroll(leg, invite(running, user))
    refused(Code.RESOURCE_EXHAUSTED, lambda: [device.sync(leg) for _ in range(100)])
    other.enroll(leg, invite(running, user))


@pytest.mark.parametrize("name", ["accounts", "io_loop", "fleet", "certificate_authority", "audit_writer"])
def test_it_is_served_again_after_a_crash(running: Controller, user: dict[str, Any], leg: RelayLeg, name: str) -> None:
    device = Caravel()
    device.enroll(leg, invite(running, user))
    assert running.system.harm(name, Harm.RAISE)

    eventually(lambda: works(lambda: device.sync(leg)), every=0.1)
    eventually(lambda: works(lambda: Caravel().enroll(leg, invite(running, user))), every=0.1)


def test_it_is_served_again_when_it_could_not_be_on_a_new_loop(
    running: Controller, user: dict[str, Any], leg: RelayLeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Caravel()
    device.enroll(leg, invite(running, user))
    real, failed = SyncServer._start, threading.Event()

    async def start(server: SyncServer, configuration: grpc.ServerCertificateConfiguration) -> grpc.aio.Server:
        if not failed.is_set():
            failed.set()
            raise OSError("no space left on device")
        return await real(server, configuration)

    monkeypatch.setattr("actors.accounts.actor._TRY_AGAIN_S", 0.1)
    monkeypatch.setattr(SyncServer, "_start", start)
    assert running.system.harm("io_loop", Harm.RAISE)
    assert failed.wait(30)
    eventually(lambda: works(lambda: device.sync(leg)), every=0.1)


def works(act: Callable[[], object]) -> bool:
    """While a part is being replaced, callers are told to come again, and nothing else."""
    try:
        act()
    except CoxswainError:  # what the API says of a part that is being replaced
        return False
    except grpc.RpcError as failed:
        error: Any = failed
        if error.code() in (Code.UNAVAILABLE, Code.INTERNAL, Code.CANCELLED, Code.DEADLINE_EXCEEDED):
            return False
        raise
    return True


def test_its_certificate_is_renewed_while_it_serves(running: Controller, user: dict[str, Any]) -> None:
    with running.store.read() as tx:
        ((before,),) = tx.execute("SELECT count(*) FROM service_certs WHERE role = 'grpc'")
        ((old,),) = tx.execute("SELECT max(serial) FROM service_certs WHERE role = 'grpc'")
    assert before == 1
    assert old in str(running.client.get("/api/ca"))
    # As if two thirds of its life were over: the authority reads it at its start, and finds it due.
    with running.store.write() as tx:
        tx.execute("DELETE FROM service_certs")
    assert running.system.harm("certificate_authority", Harm.RAISE)

    def renewed() -> bool:
        with running.store.read() as tx:
            rows = tx.execute("SELECT serial FROM service_certs WHERE role = 'grpc'")
        return bool(rows) and rows[0][0] != old

    eventually(renewed)
    fresh = relay_leg(running)
    try:
        Caravel().enroll(fresh, invite(running, user))
    finally:
        fresh.close()
