"""Signatures of programs, against what minisign 0.11 made; any other byte is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coxswain.errors import InvalidInput, Refused
from coxswain.onboarding.signature import signed_digest
from coxswain.onboarding.sources import Sources

PROGRAM = b"a node agent\n"
KEY = "RWSr4TnfDJ88cDjbOFItt9RUviXpHN0DkXz7LJMIa8KoUVbH+tKWmCtg"
OTHER_KEY = "RWSr4TnfDJ88cDjbOFItt9RUviXpHN0DkXz7LJMIa8KoUVbH+tKWmCtA"
SIGNATURE = """\
untrusted comment: signature from minisign secret key
RUSr4TnfDJ88cFlYB/ikmv4hIPPKqw+HkhYhbvKSMe7caOEksap0iIpcE9I3RDFACNjQmjLaoZicoUKlWO88oRyt/9plSRwl4Ak=
trusted comment: version 1.2.3
7OYozgwmYhn3zFzydK6Z3e98eTly3wNpqxuP1Kl/oKnS4VrVjCqWQNXMJaj+TSTqeO4vK5BV/H1voEfZqoR9DA==
"""
LEGACY = """\
untrusted comment: signature from minisign secret key
RWSr4TnfDJ88cL6hrGmql2fd2sDEOfJJZan34Y+xhYrXM6TOFn0Ti0goVbspVEhCtgOxf+Hql0vfdGbFfMYUyd+Vv3y5CQRzdAI=
trusted comment: legacy
ZxO5YFTaig4GaySixZabvX5tExT5OBXtlnf4w2GgPgiGeIjAzcR1HWecbAOrcV6NjMMtgYWdlJWFJLk7+MNSAw==
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "node"
    file.write_bytes(PROGRAM)
    (tmp_path / "node.minisig").write_text(SIGNATURE)
    return file


def test_what_minisign_signed_is_good(program: Path) -> None:
    assert signed_digest(program, KEY) == hashlib.sha256(PROGRAM).hexdigest()


def test_comments_that_nobody_signed_may_say_anything(program: Path) -> None:
    text = SIGNATURE.replace("signature from minisign secret key", "whatever")
    program.with_name("node.minisig").write_text(text)
    assert signed_digest(program, KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        LEGACY,
        SIGNATURE.replace("version 1.2.3", "version 1.2.4"),
        SIGNATURE.replace("RUSr4T", "RUSr4U"),
        "\n".join(SIGNATURE.splitlines()[:2]),
        SIGNATURE.replace("trusted comment: version", "comment: version"),
    ],
)
def test_another_signature_is_not(program: Path, text: str) -> None:
    program.with_name("node.minisig").write_text(text)
    with pytest.raises(Refused, match="is no signature of it by the release key"):
        signed_digest(program, KEY)


def test_another_program_or_key_or_none_is_not(program: Path) -> None:
    with pytest.raises(Refused):
        signed_digest(program, OTHER_KEY)
    program.write_bytes(PROGRAM + b" ")
    with pytest.raises(Refused):
        signed_digest(program, KEY)
    program.with_name("node.minisig").unlink()
    with pytest.raises(InvalidInput, match=r"node.minisig: cannot be read"):
        signed_digest(program, KEY)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.integers(0, len(SIGNATURE) - 1).map(lambda at: SIGNATURE.encode()[:at]))
def test_any_bytes_are_refused(program: Path, raw: bytes) -> None:
    if raw.decode(errors="replace").splitlines()[:4] == SIGNATURE.splitlines():
        return  # but for its last newline
    program.with_name("node.minisig").write_bytes(raw)
    with pytest.raises(Refused):
        signed_digest(program, KEY)


def test_only_what_the_release_key_signed_is_installed(program: Path) -> None:
    settings = {"node.release_key": KEY, "relay.release_key": "", "node.binary_path": str(program)}
    sources = Sources(lambda name: settings.get(name, ""))
    assert sources.node({}).sha256 == hashlib.sha256(PROGRAM).hexdigest()
    with pytest.raises(Refused, match="behind a URL"):
        sources.node({"url": "https://releases.example/node", "sha256": "0" * 64})
    program.write_bytes(b"something else")
    with pytest.raises(Refused, match="is no signature"):
        sources.node({})
    assert sources.relay({"path": str(program)}).path == str(program), "each program has a key of its own"
