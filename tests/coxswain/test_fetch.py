"""Fetching a file from a real server that sends too much, too little, too late, or the wrong thing."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coxswain.errors import InvalidInput, SourceFailure
from coxswain.fetch import Bounds, NotThereError, check_url, fetch, shown
from tests.file_server import Files, make_certificate, serving

CONTENT = bytes(range(256)) * 1_000
SMALL = Bounds(wire=100_000, unpacked=300_000, silence_s=5)


@pytest.fixture
def files() -> Iterator[Files]:
    with serving() as server:
        yield server


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "fresh"


def test_what_is_packed_is_unpacked_and_its_digest_is_of_what_came(files: Files, into: Path) -> None:
    packed = gzip.compress(CONTENT)
    into.write_text("left over")
    found = fetch(files.give("/a.gz", packed), into, sha256=hashlib.sha256(packed).hexdigest())
    assert into.read_bytes() == CONTENT and found.size == len(CONTENT)
    assert found.sha256 == hashlib.sha256(packed).hexdigest()
    assert into.stat().st_mode & 0o777 == 0o600


def test_what_is_not_packed_is_taken_as_it_is(files: Files, into: Path) -> None:
    fetch(files.give("/a", CONTENT), into)
    assert into.read_bytes() == CONTENT
    fetch(files.chunks("/b", b"abc", 5), into)
    assert into.read_bytes() == b"abc" * 5


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/cut", "breaks off: 100 of 5000 bytes"),
        ("/half", "ends too early"),
        ("/noise", "cannot be unpacked"),
        ("/trailer", "more after its end"),
        ("/promises", "more than 0 MB"),
        ("/endless", "more than 0 MB"),
        ("/bomb", "more than 0 MB"),
        ("/wrong", "has the SHA-256"),
        ("/error", "status 500"),
        ("/loop", "redirects"),
        ("/elsewhere", "no http"),
    ],
)
def test_whatever_is_wrong_is_said_and_nothing_is_left(files: Files, into: Path, path: str, why: str) -> None:
    packed = gzip.compress(CONTENT, mtime=0)
    files.give("/cut", CONTENT[:100], promised=5_000)
    files.give("/half", packed[:-20])
    files.give("/noise", b"\x1f\x8b" + bytes(1_000))
    files.give("/trailer", packed + b"more")
    files.give("/promises", b"", promised=10**15)
    files.chunks("/endless", b"y" * 65_536, 10)
    files.give("/bomb", gzip.compress(bytes(10_000_000)))
    files.give("/wrong", packed)
    files.fail("/error", 500)
    files.redirect("/loop", "/loop")
    files.redirect("/elsewhere", "file:///etc/passwd")
    sha256 = "0" * 64 if path == "/wrong" else ""
    with pytest.raises(SourceFailure, match=why):
        fetch(files.url + path, into, sha256=sha256, bounds=SMALL)
    assert list(into.parent.iterdir()) == []


def test_what_is_not_there_is_a_case_of_its_own(files: Files, into: Path) -> None:
    for path, status in (("/none", 404), ("/gone", 410), ("/forbidden", 403)):
        files.fail(path, status)
        with pytest.raises(NotThereError):
            fetch(files.url + path, into)


def test_who_cannot_be_reached_or_falls_silent(files: Files, into: Path) -> None:
    with pytest.raises(SourceFailure, match="cannot be reached"):
        fetch("http://127.0.0.1:1/x", into, bounds=SMALL)
    with pytest.raises(SourceFailure, match="timed out"):
        fetch(files.stall("/stall"), into, bounds=Bounds(silence_s=0.2))
    assert not into.exists()


def test_another_thread_ends_it(files: Files, into: Path) -> None:
    held: list[threading.Timer] = []

    def hold(thing: object) -> None:
        held.append(threading.Timer(0.2, thing.close))  # type: ignore[attr-defined]
        held[-1].start()

    with pytest.raises(SourceFailure, match="breaks off"):
        fetch(files.stall("/stall"), into, hold=hold)
    held[0].join()


def test_the_certificate_has_to_be_good(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path / "pki")
    with serving(certificate) as secure, serving() as plain:
        place = secure.give("/a", CONTENT)
        with pytest.raises(SourceFailure, match="certificate"):
            fetch(place, into)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        fetch(place, into)
        assert into.read_bytes() == CONTENT
        with pytest.raises(SourceFailure, match="not encrypted"):
            fetch(secure.redirect("/down", plain.give("/a", CONTENT)), into)
        fetch(plain.redirect("/up", place), into)


@pytest.mark.parametrize(
    "url",
    ["ftp://x/y", "file:///etc/passwd", "https://", "https://x:99999/", "https://u:p@x/", "https://x/a b", "https://x/\n"],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_url(url, "")
    assert "u:p" not in str(caught.value)


def test_what_is_not_encrypted_needs_a_digest() -> None:
    check_url("https://x/y", "")
    check_url("http://x/y", "0" * 64)
    with pytest.raises(InvalidInput, match="not encrypted") as caught:
        check_url("http://x/y", "")
    assert "--sha256" in caught.value.remedy


def test_a_query_is_never_shown() -> None:
    assert shown("https://x.example/a?license_key=secret") == "https://x.example/a"
    with pytest.raises(SourceFailure) as caught:
        fetch("http://127.0.0.1:1/x?license_key=secret", Path("/nowhere"), bounds=SMALL)
    assert "secret" not in str(caught.value)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda b: gzip.compress(CONTENT[:500])[: len(b)] + b))
def test_any_bytes_are_taken_whole_or_refused(files: Files, into: Path, content: bytes) -> None:
    try:
        found = fetch(files.give("/x", content), into, bounds=SMALL)
    except SourceFailure:
        assert not into.exists()
    else:
        expected = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        assert into.read_bytes() == expected and found.size == len(expected)
