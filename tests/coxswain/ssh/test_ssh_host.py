"""The SSH adapter against a real sshd: who the host is, what is run there, what is put there."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterator

import pytest

from coxswain.errors import DeadlineExceeded, NodeRefused, NodeUnreachable, Refused
from coxswain.ssh import (
    CommandFailed,
    DirectDialer,
    HostKeyChanged,
    SentFile,
    SshIdentity,
    connect,
    connection,
    fingerprint_of,
    see_host_key,
    turns,
)
from coxswain.ssh.connection import Login, Target
from tests import machines
from tests.machines import PASSWORD, Machine
from tests.support import eventually

DIALER = DirectDialer()


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with Machine(tmp_path_factory.mktemp("host"), "127.0.2.9") as running:
        yield running


@pytest.fixture(scope="module")
def identity():
    return SshIdentity.make()


@pytest.fixture(scope="module")
def key(machine):
    return see_host_key(Target(machine.address), DIALER)


@pytest.fixture
def host(machine, identity, key):
    machine.authorized_keys.write_text(identity.public_line + "\n")
    opened = connect(Target(machine.address, host_key=key), Login(identity), DIALER)
    yield opened
    opened.close()


def test_the_key_it_shows_is_the_one_that_ssh_keygen_prints(machine, key):
    assert fingerprint_of(key) == machine.fingerprint


def test_the_controllers_key_is_one_line_with_its_comment(identity):
    kind, _, comment = identity.public_line.split()
    assert (kind, comment) == ("ssh-ed25519", "cox@pharosvpn")
    again = SshIdentity.from_pkcs8(identity.pkcs8())
    assert again.public_line == identity.public_line
    assert repr(identity) == "SshIdentity()"


def test_nothing_is_sent_to_a_host_with_another_key(key, identity, tmp_path):
    with Machine(tmp_path, "127.0.2.10") as alone:  # nobody else's late lines are in its log
        for login in (Login(password=PASSWORD), Login(identity)):
            with pytest.raises(HostKeyChanged, match="Nothing was sent"):
                connect(Target(alone.address, host_key=key), login, DIALER)
    told = alone.log("sshd")  # whole, now that sshd has ended
    assert told
    assert "Accepted" not in told and "Failed" not in told and "user root" not in told


def test_a_password_once(machine, key):
    login = Login(password=PASSWORD)
    assert PASSWORD not in repr(login)
    opened = connect(Target(machine.address, host_key=key), login, DIALER)
    assert opened.run("id -u").stdout == "0\n"
    opened.close()
    with pytest.raises(NodeRefused, match="not let in with the password") as caught:
        connect(Target(machine.address, host_key=key), Login(password="wrong one"), DIALER)
    assert "wrong one" not in str(caught.value)


def test_a_password_that_the_host_asks_for(tmp_path, monkeypatch):
    """Keyboard-interactive, and nothing else. The service is requested once a connection: sshd would not mind, but servers
    written in Go end a connection that requests it again.
    """
    asking = machines._SSHD
    for was, now in (
        ("UsePAM no", "UsePAM yes"),
        ("PasswordAuthentication yes", "PasswordAuthentication no"),
        ("KbdInteractiveAuthentication no", "KbdInteractiveAuthentication yes"),
        ("LogLevel VERBOSE", "LogLevel DEBUG3"),
    ):
        assert was in asking
        asking = asking.replace(was, now)
    monkeypatch.setattr(machines, "_SSHD", asking)
    with Machine(tmp_path, "127.0.2.11") as alone:
        target = Target(alone.address, host_key=see_host_key(Target(alone.address), DIALER))
        opened = connect(target, Login(password=PASSWORD), DIALER)
        assert opened.run("echo let in").stdout == "let in\n"
        opened.close()
        with pytest.raises(NodeRefused, match="was not let in with the password"):
            connect(target, Login(password="wrong"), DIALER)
    told = alone.log("sshd")
    assert "Accepted keyboard-interactive" in told
    connections = told.count("SSH2_MSG_NEWKEYS received") - 1  # but for the one that looked at the key
    assert told.count("receive packet: type 5 [preauth]") == connections


def test_a_key_that_is_not_there(machine, key):
    with pytest.raises(NodeRefused, match="not let in with the controller's key") as caught:
        connect(Target(machine.address, host_key=key), Login(SshIdentity.make()), DIALER)
    assert "cox ssh-key" in caught.value.remedy
    assert f"cox servers add {machine.address} --user root --port 22 --password" in caught.value.remedy


@pytest.mark.parametrize(
    ("setting", "says", "means"),
    [
        ("PubkeyAuthentication no", "takes no controller's key from root; it takes: password", "content"),
        ("AuthenticationMethods publickey,password", "key alone does not let root in; it also wants: password", "content"),
        ("PasswordAuthentication no", "takes no password from root; it takes: publickey", "say --key"),
    ],
)
def test_an_sshd_that_wants_something_else_says_what_and_there_is_a_way_out(tmp_path, monkeypatch, setting, says, means):
    """Two factors were a login that went well, and 20 s later a connection that had broken."""
    monkeypatch.setattr(machines, "_SSHD", f"{setting}\n{machines._SSHD}")
    identity = SshIdentity.make()
    with Machine(tmp_path, "127.0.2.12") as odd:
        odd.authorized_keys.write_text(identity.public_line + "\n")
        target = Target(odd.address, host_key=see_host_key(Target(odd.address), DIALER))
        login = Login(password=PASSWORD) if "say --key" in means else Login(identity)
        with pytest.raises(NodeRefused, match=says) as caught:
            connect(target, login, DIALER)
    assert means in caught.value.remedy and "cox ssh-key" in caught.value.remedy


def test_a_failed_command_says_which_and_what_it_printed(host):
    with pytest.raises(CommandFailed, match=r"listing it failed \(exit code 2\).*nonsuch"):
        host.run("ls /nonsuch", what="listing it")
    assert host.run("exit 7", check=False).code == 7


def test_output_is_bounded_and_input_reaches_the_command(host):
    done = host.execute("head -c 3000000 /dev/zero; head -c 100000 /dev/zero >&2", max_output=1_000)
    assert (len(done.stdout), len(done.stderr), done.code) == (1_000, 1_000, 0)
    assert host.run("wc -c", stdin=b"x" * 1_000_000).stdout.strip() == "1000000"


@pytest.mark.parametrize(
    ("script", "code", "stdout", "stderr"),
    [
        ("exec >&-; sleep 0.3; echo late >&2; exit 3", 3, "", "late\n"),
        ("exec >&- 2>&-; sleep 0.3; exit 4", 4, "", ""),
        ("(sleep 0.5; echo after all) & exit 5", 5, "after all\n", ""),
        ("sleep 30 & echo at once; exit 6", 6, "at once\n", ""),
    ],
    ids=["stderr alone", "no output any more", "status before output", "held open in the background"],
)
def test_the_end_of_a_command_is_that_of_its_output_and_its_status(host, monkeypatch, script, code, stdout, stderr):
    if "sleep 30" in script:
        monkeypatch.setattr("coxswain.ssh.connection._REST_S", 0.2)
    done = host.execute(script, deadline=20)
    assert (done.code, done.stdout, done.stderr) == (code, stdout, stderr)


def test_a_command_that_takes_its_time_is_not_looked_at_all_the_while(host, monkeypatch):
    """Twenty hosts that are waited for at once would cost the controller a tenth of a processor."""
    looks: list[object] = []
    drain = connection._drain
    monkeypatch.setattr(connection, "_drain", lambda channel, *rest: (looks.append(channel), drain(channel, *rest)))
    assert host.execute("sleep 1; echo done").stdout == "done\n"
    assert len(looks) <= 16


def test_a_command_that_does_not_read_its_input_tells_its_own_error(host):
    done = host.execute("echo no >&2; exit 3", stdin=iter([b"x" * 200_000] * 50))
    assert (done.code, done.stderr) == (3, "no\n")


def test_deadlines_and_closing_from_outside(host):
    with pytest.raises(DeadlineExceeded, match=r"longer than 0\.3 s"):
        host.execute("sleep 30", deadline=0.3)
    with pytest.raises(DeadlineExceeded, match=r": 'sleep 31; true' took longer than 0\.3 s$"):
        host.run("sleep 31; true", deadline=0.3)
    assert host.run("echo still there").stdout == "still there\n"
    threading.Timer(0.3, host.close).start()
    with pytest.raises(NodeUnreachable, match="connection broke"):
        host.execute("sleep 30", deadline=20)


def test_a_line_that_breaks(machine, host):
    threading.Timer(0.3, machine.cut_connections).start()
    with pytest.raises(NodeUnreachable, match="connection broke"):
        host.execute("sleep 30", deadline=20)
    with pytest.raises(NodeUnreachable):
        host.run("true")


def test_a_near_host_that_is_slow_keeps_no_other_upload_waiting(host, machine, identity, key, monkeypatch):
    """It reads a block of 64 KB now and then, and the controller has nothing to do meanwhile. Its kernel acknowledges what
    arrives at once, as a busy host's does.
    """
    monkeypatch.setattr(connection, "_round_trip_s", lambda _connection, **_which: 0.0001)
    only = threading.BoundedSemaphore(1)
    monkeypatch.setattr(turns, "_AT_ONCE", only)
    slow = connect(Target(machine.address, host_key=key), Login(identity), DIALER)
    reads = "while :; do dd bs=64k count=1 iflag=fullblock of=/dev/null status=none; sleep 0.03; done"
    goes_on, ended = threading.Event(), threading.Event()

    def blocks() -> Iterator[bytes]:
        for number in range(10_000):
            yield bytes(65_536)
            if number == 20:
                goes_on.set()

    def send() -> None:
        with contextlib.suppress(NodeUnreachable):
            slow.execute(reads, stdin=blocks(), deadline=600)
        ended.set()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        assert goes_on.wait(60)
        assert host.execute("wc -c", stdin=iter([bytes(1_000_000)] * 3), deadline=300).stdout.strip() == "3000000"
        assert not ended.is_set()
    finally:
        slow.close()
        thread.join()


def test_a_file_arrives_whole_with_its_mode(machine, host, tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "big").write_bytes(content)
    told: list[tuple[int, int]] = []
    host.put("/etc/node/deep/er/it's here", tmp_path / "big", 0o640, progress=lambda sent, size: told.append((sent, size)))
    path = machine.path("/etc/node/deep/er/it's here")
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert told[-1] == (3_000_000, 3_000_000)
    for mode in (0o600, 0o640, 0o644, 0o755):
        host.put("/etc/node/small", b"one\n", mode)
        assert stat.S_IMODE(machine.path("/etc/node/small").stat().st_mode) == mode
    host.put_and_run([SentFile(f"/etc/node/{mode:o}", b"it", mode) for mode in (0o644, 0o600, 0o644)])
    assert [stat.S_IMODE(machine.path(f"/etc/node/{mode:o}").stat().st_mode) for mode in (0o644, 0o600)] == [0o644, 0o600]
    assert host.read("/etc/node/small") == b"one\n"
    assert host.read("/etc/node/nonsuch") is None
    assert machine.files("/etc/node/deep/er") == ["it's here"]


def test_an_upload_that_breaks_off_leaves_the_old_file_and_no_other(machine, host, tmp_path):
    host.put("/etc/node/agent", b"the old one", 0o755)
    (tmp_path / "big").write_bytes(os.urandom(8_000_000))

    def cut(sent: int, _size: int) -> None:
        if sent > 2_000_000:
            machine.cut_connections()

    with pytest.raises(NodeUnreachable):
        host.put("/etc/node/agent", tmp_path / "big", 0o755, progress=cut)
    assert machine.path("/etc/node/agent").read_bytes() == b"the old one"
    eventually(lambda: [n for n in machine.files("/etc/node") if ".cox-" in n] == [])


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, identity):
    (tmp_path / "host").mkdir()
    with Machine(tmp_path / "host", "127.0.2.11", small_mb=2) as small:
        small.authorized_keys.write_text(identity.public_line + "\n")
        key = see_host_key(Target(small.address), DIALER)
        host = connect(Target(small.address, host_key=key), Login(identity), DIALER)
        host.put("/usr/local/bin/node", b"the old one", 0o755)
        (tmp_path / "big").write_bytes(os.urandom(6_000_000))
        with pytest.raises(CommandFailed, match="No space left on device"):
            host.put("/usr/local/bin/node", tmp_path / "big", 0o755)
        assert host.run("cat /usr/local/bin/node; ls /usr/local/bin").stdout == "the old onenode\n"
        host.close()


def test_only_the_pinned_type_of_key_is_offered(tmp_path, identity):
    """A server with several keys shows the one that is known, whichever its favourite is."""
    (tmp_path / "host").mkdir()
    with Machine(tmp_path / "host", "127.0.2.12") as many:
        pins = {}
        for kind in ("ecdsa", "rsa"):
            many._make_host_key(kind)
            pins[kind] = (many.home / f"host_{kind}.pub").read_text().rsplit(" ", 1)[0]
        many.stop()
        many.kind = f"ed25519\nHostKey {many.home}/host_ecdsa\nHostKey {many.home}/host_rsa"
        many.start()
        many.authorized_keys.write_text(identity.public_line + "\n")
        for pin in pins.values():
            opened = connect(Target(many.address, host_key=pin), Login(identity), DIALER)
            assert opened.host_key == pin
            opened.close()
        many.stop()
        many.kind = "ed25519"
        many.start()
        with pytest.raises(NodeRefused, match="no host key of the type ssh-rsa any more"):
            connect(Target(many.address, host_key=pins["rsa"]), Login(identity), DIALER)


def test_what_is_no_ssh_server(key):
    with pytest.raises(NodeUnreachable, match="Connection refused") as refused:
        see_host_key(Target("127.0.2.9", 9), DIALER)
    assert "does an sshd listen" in refused.value.remedy and "--port" in refused.value.remedy
    with socket.create_server(("127.0.2.9", 0)) as listener:

        def answer() -> None:
            accepted = listener.accept()[0]
            accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            accepted.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NodeUnreachable, match="no SSH handshake") as strange:
            see_host_key(Target("127.0.2.9", listener.getsockname()[1]), DIALER)
        assert "does an sshd listen" in strange.value.remedy
        thread.join()


def test_a_route_is_taken_or_refused_never_ignored(machine):
    with pytest.raises(Refused, match="rly_one: there is no way"):
        see_host_key(Target(machine.address, route=("rly_one",)), DIALER)


def test_there_is_no_login_without_a_known_key(machine):
    with pytest.raises(ValueError, match="not known"):
        connect(Target(machine.address), Login(password=PASSWORD), DIALER)
