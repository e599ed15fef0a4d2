"""State files and identities: names, modes, formats (node-contract.md 3.4, 6.1, 6.2, 7.6, 8.1)."""

import base64
import json
import random
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coxswain.agent.dataplane import StoredPolicy
from coxswain.agent.identity import (
    load_or_create_awg,
    load_or_create_node_key,
    load_or_create_xray,
    new_csr,
    new_obfuscation,
)
from coxswain.agent.state import DirectoryFiles, MemoryFiles, State, XrayClient, XrayConfig
from coxswain.errors import LoosePermissions, Refused
from coxswain.netpolicy import Policy, Transit
from coxswain.ports import PortRange
from coxswain.wire import validate

POLICY = StoredPolicy(
    Policy(True, True, False, (Transit("10.7.0.2/32", "awg1", 7100, 7101),)),
    (("iptables", "-D", "FORWARD", "-i", "awg0", "-j", "ACCEPT"), ("ip", "rule", "del", "fwmark", "7100")),
)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_names_modes_and_contents(tmp_path):
    directory = tmp_path / "etc" / "node"
    files = DirectoryFiles(directory)
    state = State(files)
    identity, xray = load_or_create_awg(files), load_or_create_xray(files)
    state.set_awg_revision(41)
    state.set_link_revision("awg1", 3)
    state.set_policy(POLICY)
    state.set_xray(XrayConfig(443, "d:443", ("d",), ("",), (XrayClient("u", "xtls-rprx-vision"),)), 9)
    assert {p.name: oct(mode(p)) for p in directory.iterdir()} == {
        "awg-node.json": "0o600",
        "xray-node.json": "0o600",
        "awg-revision": "0o644",
        "awg1-revision": "0o644",
        "netpolicy.json": "0o644",
        "xray-config.json": "0o600",
    }
    assert mode(directory) == 0o755
    assert (directory / "awg-revision").read_bytes() == b"41\n"
    awg = json.loads((directory / "awg-node.json").read_text())
    assert base64.b64decode(awg["private_key"]) == identity.private_key
    assert set(awg["obfuscation"]) == {"jc", "jmin", "jmax", "s1", "s2", "s3", "s4", "h1", "h2", "h3", "h4"}
    assert json.loads((directory / "xray-node.json").read_text())["private_key"].isascii()
    assert json.loads((directory / "netpolicy.json").read_text()) == {
        "policy": {
            "Forwarding": True,
            "Masquerade": True,
            "Isolation": False,
            "Transits": [{"DeviceCIDR": "10.7.0.2/32", "InnerInterface": "awg1", "Mark": 7100, "Table": 7101}],
        },
        "down": [list(argv) for argv in POLICY.down],
    }
    again = State(DirectoryFiles(directory))
    assert (again.awg_revision(), again.link_revision("awg1"), again.policy()) == (41, 3, POLICY)
    assert again.xray()[1] == 9
    assert (load_or_create_awg(files), load_or_create_xray(files)) == (identity, xray)
    again.forget_link("awg1")
    again.forget_link("awg1")
    assert again.link_revision("awg1") == 0


def test_an_empty_policy_is_null_where_the_existing_agent_writes_null(tmp_path):
    state = State(DirectoryFiles(tmp_path))
    state.set_policy(StoredPolicy(Policy()))
    found = json.loads((tmp_path / "netpolicy.json").read_text())
    assert (found["down"], found["policy"]["Transits"]) == (None, None)
    assert state.policy() == StoredPolicy(Policy())


def test_a_range_of_ports_is_kept_where_another_agent_passes_over_it(tmp_path):
    state = State(DirectoryFiles(tmp_path))
    stored = StoredPolicy(Policy(forwarding=True, ports=PortRange(20000, 29999)), (("ip", "rule"),))
    state.set_policy(stored)
    found = json.loads((tmp_path / "netpolicy.json").read_text())
    assert found["policy"].pop("EndpointPorts") == [20000, 29999]
    assert state.policy() == stored
    (tmp_path / "netpolicy.json").write_text(json.dumps(found))
    assert state.policy() == StoredPolicy(Policy(forwarding=True), stored.down), (
        "as the existing agent would have written it"
    )


def test_a_failed_write_leaves_the_old_file_and_no_leftovers(tmp_path, monkeypatch):
    files = DirectoryFiles(tmp_path)
    files.write("f", b"old", 0o644)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write("f", b"new", 0o644)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"old")]


def test_a_leftover_of_a_crash_is_no_obstacle(tmp_path):
    (tmp_path / "f.tmp").write_bytes(b"half")
    DirectoryFiles(tmp_path).write("f", b"whole", 0o600)
    assert [(p.name, p.read_bytes(), mode(p)) for p in tmp_path.iterdir()] == [("f", b"whole", 0o600)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("awg-revision", b"eleven"),
        ("netpolicy.json", b"{"),
        ("netpolicy.json", b"[]"),
        ("netpolicy.json", b'{"policy": {"Transits": [{}]}}'),
        ("netpolicy.json", b'{"policy": {"EndpointPorts": [20000]}}'),
        ("xray-config.json", b'{"port": "x"}'),
    ],
)
def test_state_that_cannot_be_understood_is_refused(tmp_path, name, content):
    DirectoryFiles(tmp_path).write(name, content, 0o600)
    state = State(DirectoryFiles(tmp_path))
    with pytest.raises(Refused, match=name):
        state.awg_revision(), state.policy(), state.xray()
    assert (tmp_path / name).read_bytes() == content


SECRET = base64.b64encode(b"s" * 32).decode()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        json.dumps({"private_key": SECRET}),
        json.dumps({"private_key": SECRET[:-4], "obfuscation": {}}),
        json.dumps({"private_key": SECRET, "obfuscation": {"h1": 1, "h2": 2, "h3": 3, "h4": 4}}),
        json.dumps({"private_key": SECRET, "obfuscation": {"h1": "5", "h2": 6, "h3": 7, "h4": 8}}),
    ],
)
def test_a_corrupt_identity_is_refused_and_kept(tmp_path, content):
    DirectoryFiles(tmp_path).write("awg-node.json", content.encode(), 0o600)
    with pytest.raises(Refused, match=r"awg-node\.json") as caught:
        load_or_create_awg(DirectoryFiles(tmp_path))
    assert SECRET[:20] not in str(caught.value)
    assert (tmp_path / "awg-node.json").read_text() == content


@pytest.mark.parametrize("content", ["x", '{"private_key": "AAAA"}', '{"private_key": 3}', "[]"])
def test_a_corrupt_reality_key_is_refused(tmp_path, content):
    DirectoryFiles(tmp_path).write("xray-node.json", content.encode(), 0o600)
    with pytest.raises(Refused, match=r"xray-node\.json"):
        load_or_create_xray(DirectoryFiles(tmp_path))


@pytest.mark.parametrize("name", ["awg-node.json", "xray-node.json", "node.key"])
def test_keys_that_others_may_read_are_refused(tmp_path, name):
    files = DirectoryFiles(tmp_path)
    load = {"awg-node.json": load_or_create_awg, "xray-node.json": load_or_create_xray, "node.key": load_or_create_node_key}
    load[name](files)
    (tmp_path / name).chmod(0o640)
    with pytest.raises(LoosePermissions, match="0640"):
        load[name](files)


def test_the_other_agents_identity_is_taken_over(tmp_path):
    """As section 6.1 has it, with I1 and in another order."""
    obfuscation = {"i1": "<b 0x01>", "h4": 8, "h3": 7, "h2": 6, "h1": 5, "s1": 20, "s2": 30, "s3": 40, "s4": 50}
    document = {"obfuscation": obfuscation | {"jc": 4, "jmin": 40, "jmax": 800}, "private_key": SECRET}
    DirectoryFiles(tmp_path).write("awg-node.json", json.dumps(document, indent="\t").encode(), 0o600)
    identity = load_or_create_awg(DirectoryFiles(tmp_path))
    public = X25519PrivateKey.from_private_bytes(b"s" * 32).public_key().public_bytes_raw()
    assert identity.public_key == base64.b64encode(public).decode()
    assert (identity.obfuscation.i1, identity.obfuscation.jmax, identity.private_text) == ("<b 0x01>", 800, SECRET)
    assert SECRET not in repr(identity)


def test_a_reality_key_is_clamped_and_its_public_key_unpadded():
    identity = load_or_create_xray(MemoryFiles())
    assert identity.private_key[0] & 7 == 0
    assert identity.private_key[31] & 0xC0 == 0x40
    assert len(identity.public_key) == 43


@given(st.integers())
def test_obfuscation_sets_keep_the_ranges(seed):
    drawn = new_obfuscation(random.Random(seed))
    assert validate.obfuscation("o", drawn) is drawn
    assert 3 <= drawn.jc <= 10
    assert 25 <= drawn.jmin <= 75
    assert 700 <= drawn.jmax - drawn.jmin <= 900
    assert all(15 <= s <= 150 for s in (drawn.s1, drawn.s2, drawn.s3, drawn.s4))
    assert all(5 <= h <= 2147483647 for h in (drawn.h1, drawn.h2, drawn.h3, drawn.h4))
    assert drawn.i1 == ""


def test_the_csr(tmp_path):
    files = DirectoryFiles(tmp_path)
    key, made = load_or_create_node_key(files)
    assert made
    assert isinstance(key.curve, ec.SECP256R1)
    assert (tmp_path / "node.key").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    again, made = load_or_create_node_key(files)
    assert (again.private_numbers(), made) == (key.private_numbers(), False)
    csr = x509.load_pem_x509_csr(new_csr(again))
    assert csr.is_signature_valid
    assert csr.subject.rfc4514_string() == "CN=pharos-node-node,O=PharosVPN"
    assert len(csr.extensions) == 0
    assert len(csr.attributes) == 0
    assert csr.signature_hash_algorithm.name == "sha256"


def test_a_key_of_another_kind_is_refused(tmp_path):
    from cryptography.hazmat.primitives import serialization as s  # noqa: PLC0415

    rsa_key = rsa.generate_private_key(65537, 2048)
    pem = rsa_key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    for content in (pem, b"junk"):
        DirectoryFiles(tmp_path).write("node.key", content, 0o600)
        with pytest.raises(Refused, match=r"node\.key"):
            load_or_create_node_key(DirectoryFiles(tmp_path))
        assert (tmp_path / "node.key").read_bytes() == content
