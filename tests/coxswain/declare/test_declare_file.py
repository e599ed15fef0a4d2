"""Reading fleet files: what is accepted, in which form, and where exactly a mistake is."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coxswain.declare.schema import read
from coxswain.errors import InvalidInput

WHOLE = b"""\
fleet: 1
servers:
  - {name: host-1, ssh_host: 203.0.113.7}
nodes:
  - name: ams-1
    control_addr: 203.0.113.7
    endpoint_ips: ["203.0.113.7", "203.0.113.7"]
    endpoint_ports: 20000 - 29999
    policy: {isolation: true}
  - {name: fra-1, server: host-1}
paths:
  - {name: over, hops: [ams-1, fra-1], color: "#AABBCC"}
users:
  - name: Ann
    email: Ann@Example.org
    devices:
      - name: phone
        profiles:
          - {name: home, node: ams-1}
          - {name: away, path: over}
      - {name: laptop, all_nodes: yes}
"""


def test_everything_that_a_file_can_say() -> None:
    items, spoken = read(WHOLE)
    assert spoken == {"server", "node", "path", "user", "device", "profile"}
    found = {(i.kind, i.key): i for i in items}
    node = found["node", ("ams-1",)]
    assert (node.fields["control_addr"], node.fields["endpoint_ips"]) == ("203.0.113.7:8444", ["203.0.113.7"])
    assert node.fields["endpoint_ports"] == "20000-29999"
    assert (node.fields["isolation"], "forwarding" in node.fields, node.where) == (True, False, "fleet.yaml:5")
    assert found["path", ("over",)].fields["color"] == "#aabbcc"
    assert found["user", ("ann@example.org",)].fields == {"name": "Ann", "email": "ann@example.org"}
    assert found["device", ("ann@example.org", "laptop")].fields == {"name": "laptop", "all_nodes": True}
    assert found["profile", ("ann@example.org", "phone", "away")].fields == {"name": "away", "path": "over"}


def test_a_path_is_named_as_everywhere() -> None:
    """Up to 100 characters, which an export may have; and no slash, at which an apply would stop in the middle."""
    long = "п" * 100
    device = "{{name: d, profiles: [{{name: p, path: {0}}}]}}"
    text = "fleet: 1\npaths: [{{name: {0}, hops: [a, b]}}]\nusers: [{{name: u, devices: [" + device + "]}}]"
    items, _ = read(text.format(long).encode())
    assert items[0].key == (long,) and items[-1].fields["path"] == long
    for name in ("a/b", "..", long + "p"):
        with pytest.raises(InvalidInput, match=r"fleet.yaml:2: paths\[0\].name: .* is not a name"):
            read(text.format(name).encode())


def test_what_a_file_does_not_speak_of() -> None:
    assert read(b"fleet: 1\nnodes: []\n") == ([], frozenset({"node"}))
    assert read(b"fleet: 1\n")[1] == frozenset()
    # Names of things that are not its business are taken as they are.
    assert len(read(b"fleet: 1\nusers:\n- name: A\n  devices:\n  - {name: d, profiles: [{name: p, node: x}]}\n")[0]) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "fleet.yaml:1: fleet: is missing"),
        ("fleet: 2\n", "fleet.yaml:1: fleet: 2 is no format"),
        ("- 1\n", "fleet.yaml:1: keys and values are needed"),
        ("fleet: 1\nnods: []\n", "fleet.yaml:2: nods: unknown key; did you mean nodes?"),
        ("fleet: 1\nnodes: {}\n", "fleet.yaml:2: nodes: a list is needed"),
        ("fleet: 1\nnodes:\n  - name: a\n    control_adr: x\n", "fleet.yaml:4: nodes[0]: control_adr: unknown key; did you"),
        ("fleet: 1\nnodes:\n  - region: x\n", "fleet.yaml:3: nodes[0]: name: is missing"),
        ("fleet: 1\nnodes:\n  - name: a\n", "fleet.yaml:3: nodes[0]: control_addr or server: one of them"),
        (
            "fleet: 1\nnodes:\n  - name: no\n    control_addr: h\n",
            "fleet.yaml:3: nodes[0].name: text is needed, and this is read as true or false; put it in quotes",
        ),
        ("fleet: 1\nnodes:\n  - name: 12\n", "name: text is needed, and this is read as a number; put it in quotes"),
        ("fleet: 1\nusers:\n  - name: A\n    phone: +49301234\n", "phone: text is needed, and this is read as a number"),
        ("fleet: 1\npaths:\n  - name: p\n    color: #3366cc\n", "color: text is needed, and there is nothing; what begins"),
        ("fleet: 1\nnode:\n  - name: a\n", "fleet.yaml:2: node: unknown key; did you mean nodes?"),
        ("fleet: 1\nnodes:\n- name: a\n  hop:\n\n  - b\n", "fleet.yaml:4: nodes[0]: hop: unknown key"),
        ("fleet: 1\n---\nfleet: 1\n", "fleet.yaml:2: expected a single document in the stream, but found another document"),
        ("fleet: 1\nnodes:\n  \t- name: a\n", "(a tab; indent with spaces)"),
        ("fleet: 1\nnodes:\n  - name: 1.5\n", "fleet.yaml:3: nodes[0].name: '1.5' is read as something other than text"),
        ("fleet: 1\nnodes:\n  - name: ' '\n", "fleet.yaml:3: nodes[0].name: name: ' ' is not a name"),
        ("fleet: 1\nnodes:\n  - name: a\n    name: b\n", "fleet.yaml:4: nodes[0]: 'name' stands twice"),
        ("fleet: 1\nnodes:\n- {name: a, control_addr: h}\n- {name: a, control_addr: i}\n", "fleet.yaml:4: node a is in the"),
        ("fleet: 1\nnodes:\n- {name: a, control_addr: h, endpoint_ips: [x]}\n", "fleet.yaml:3: nodes[0].endpoint_ips: endp"),
        ("fleet: 1\nnodes:\n- {name: a, control_addr: h, endpoint_ips: [[1]]}\n", "endpoint_ips: a list of texts is needed"),
        ("fleet: 1\nnodes:\n- {name: a, control_addr: h, endpoint_ports: 443}\n", "endpoint_ports: text is needed"),
        ("fleet: 1\nnodes:\n- {name: a, control_addr: h, endpoint_ports: 9-1}\n", "nodes[0].endpoint_ports: endpoint_p"),
        ("fleet: 1\nnodes:\n- &x {name: a, control_addr: h}\n", "fleet.yaml:3: anchors and aliases are not taken"),
        ("fleet: 1\nnodes: [\n", "fleet.yaml:3:"),
        ("fleet: 1\nnodes:\n\t- x\n", "fleet.yaml:3:"),
        ("fleet: 1\n? [a]\n: 1\n", "fleet.yaml:2: keys must be plain words"),
        ("fleet: 1\npaths:\n- {name: p, hops: [a]}\n", "fleet.yaml:3: paths[0]: hops: 2 or 3 nodes are needed, not 1"),
        ("fleet: 1\npaths:\n- {name: p, hops: [a, b, a]}\n", "fleet.yaml:3: paths[0]: hops: a is there twice"),
        (
            "fleet: 1\nservers:\n- {name: a, ssh_host: h, ssh_port: 22}\n- {name: b, ssh_host: h, ssh_port: 22}\n",
            "fleet.yaml:4: ssh_host: h port 22 is server a's already",
        ),
        ("fleet: 1\nservers:\n- {name: a, ssh_host: h, host_key: x}\n", "fleet.yaml:3: servers[0].host_key: host_key: 'x'"),
        ("fleet: 1\nservers:\n- {name: a, ssh_host: h, ssh_user: A B}\n", "servers[0].ssh_user: ssh_user: 'A B' is not a"),
        ("fleet: 1\nnodes:\n- {name: a, server: s}\n- {name: b, server: s}\n", "fleet.yaml:4: server: s is node a's"),
        (
            "fleet: 1\nusers:\n- name: A\n  devices:\n  - {name: d, all_nodes: true, profiles: [{name: p, node: n}]}\n",
            "fleet.yaml:5: profile A / d / p: all_nodes: a device that has profiles is given what they say",
        ),
        ("fleet: 1\nnodes: []\npaths:\n- {name: p, hops: [a, b]}\n", "fleet.yaml:4: hops: there is no node 'a'"),
        ("fleet: 1\nusers:\n- {name: A, email: a}\n", "fleet.yaml:3: users[0].email: email: 'a' is not an e-mail address"),
        ('fleet: 1\nusers:\n- {name: A, phone: "1234"}\n- {name: B, phone: "1234"}\n', "fleet.yaml:4: user 1234 is in"),
        ("fleet: 1\nusers:\n- {name: A, status: gone}\n", "users[0].status: status: 'gone' is not one of active"),
        ("fleet: 1\nusers:\n- name: A\n  devices:\n  - {name: d, status: revoked}\n", "revoking is not for a file"),
        (
            "fleet: 1\nusers:\n- name: A\n  devices:\n  - name: d\n    profiles:\n    - {name: p}\n",
            "fleet.yaml:7: users[0].devices[0].profiles[0]: node, path: exactly one of them",
        ),
        (
            "fleet: 1\nusers:\n- name: A\n  devices:\n  - name: d\n    profiles: [{name: p, path: x, protocol: both}]\n",
            "only amneziawg can follow a path",
        ),
        ("fleet: 1\nnodes:\n- {name: a, control_addr: h, preshared_key: x}\n", "preshared_key: unknown key"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_line(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(text.encode())
    assert problem in str(caught.value)


def test_a_host_key_is_kept_by_its_fingerprint() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    (item,) = read(f"fleet: 1\nservers:\n- {{name: a, ssh_host: h, host_key: {key} root@h}}\n".encode())[0]
    assert item.fields["host_key"] == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
    (again,) = read(f"fleet: 1\nservers:\n- {{name: a, ssh_host: h, host_key: {item.fields['host_key']}}}\n".encode())[0]
    assert again.fields == item.fields


def test_what_is_no_text() -> None:
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read(b"fleet: 1\n# \xff\n")


def problem_of(raw: bytes) -> str:
    try:
        read(raw)
    except InvalidInput as error:
        return str(error)
    return ""


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    problem = problem_of(raw)
    assert problem == "" or problem.startswith("fleet.yaml:")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "hops", "devices", "x"]), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["servers", "nodes", "paths", "users"]), _JSON))
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    problem = problem_of(yaml.safe_dump({"fleet": 1, **document}).encode())
    assert problem == "" or problem.startswith("fleet.yaml:")
