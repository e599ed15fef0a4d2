"""The file: whatever is done to it, it does not open, and says what kind of thing was done."""

from __future__ import annotations

import base64
import io
import os
import random
import struct
import threading

import pytest
from argon2.exceptions import HashingError
from hypothesis import given, settings
from hypothesis import strategies as st

from coxswain.backup import envelope
from coxswain.backup.archive import Begin, Data, Frame, Manifest, Page, Writer, read_frames, safe_name
from coxswain.backup.envelope import CHUNK, MAGIC, BackupSecret, Damaged, Sealer, open_sealed, passphrase
from coxswain.errors import CoxswainError, InvalidInput, KeyUnavailable, Unavailable

KEY = BackupSecret(bytes(range(32)), is_passphrase=False)
PHRASE = passphrase(b"five random words are enough")
QUICK = {"memory_kib": 64, "passes": 1, "lanes": 1}


def sealed(plain: bytes, secret: BackupSecret = KEY) -> bytes:
    out = io.BytesIO()
    sealer = Sealer(out, secret, QUICK)
    for start in range(0, len(plain), 100_000):
        sealer.write(plain[start : start + 100_000])
    sealer.close()
    return out.getvalue()


def opened(raw: bytes, secret: BackupSecret = KEY) -> bytes:
    return b"".join(open_sealed(io.BytesIO(raw), secret))


def body_of(raw: bytes) -> int:
    """Where the chunks begin."""
    (length,) = struct.unpack_from(">I", raw, len(MAGIC))
    return len(MAGIC) + 4 + int(length) + 32


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7])
@pytest.mark.parametrize("secret", [KEY, PHRASE])
def test_what_was_sealed_comes_back(size: int, secret: BackupSecret) -> None:
    plain = random.Random(size).randbytes(size)
    raw = sealed(plain, secret)
    assert opened(raw, secret) == plain
    assert size < 64 or plain[:64] not in raw
    assert sealed(plain, secret) != raw, "each file has a key of its own"


def test_another_secret_does_not_open_it() -> None:
    with pytest.raises(KeyUnavailable, match="this key does not open"):
        opened(sealed(b"x"), BackupSecret(bytes(32), is_passphrase=False))
    with pytest.raises(KeyUnavailable, match="this passphrase does not open"):
        opened(sealed(b"x", PHRASE), passphrase(b"five random words are enough."))
    with pytest.raises(InvalidInput, match="opens with a passphrase"):
        opened(sealed(b"x", PHRASE), KEY)
    with pytest.raises(InvalidInput, match="opens with a key file"):
        opened(sealed(b"x"), PHRASE)
    assert "five" not in repr(PHRASE) and "000102" not in repr(KEY)


def test_short_passphrases_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 12"):
        passphrase(b"hunter2\n")


def test_a_file_that_was_cut_is_noticed_wherever_it_was_cut() -> None:
    raw = sealed(random.Random(1).randbytes(2 * CHUNK + 500))
    body = body_of(raw)
    whole_chunks = [body + number * (CHUNK + 16) for number in range(3)]
    for end in [0, 3, len(MAGIC), body - 1, body, body + 5, *whole_chunks, *(c + 1 for c in whole_chunks), len(raw) - 1]:
        with pytest.raises(Damaged):
            opened(raw[:end])


def test_what_is_behind_the_end_is_noticed() -> None:
    for plain in (b"x", bytes(CHUNK)):
        with pytest.raises(Damaged):
            opened(sealed(plain) + b"x")
        with pytest.raises(Damaged):
            opened(sealed(plain) + sealed(plain))


def test_chunks_cannot_be_moved_left_out_or_repeated() -> None:
    raw = sealed(random.Random(2).randbytes(4 * CHUNK))
    body, step = body_of(raw), CHUNK + 16
    head = raw[:body]
    chunks = [raw[body + n * step : body + (n + 1) * step] for n in range(4)]
    for order in ([1, 0, 2, 3], [0, 2, 3], [0, 1, 1, 2, 3], [0, 1, 3, 2], [3], [0, 1, 2]):
        with pytest.raises(Damaged):
            opened(head + b"".join(chunks[n] for n in order))
    other = sealed(random.Random(2).randbytes(4 * CHUNK))
    with pytest.raises(Damaged, match="was changed at byte 0"):
        opened(head + other[body_of(other) :])


def test_every_flipped_bit_is_noticed() -> None:
    raw = sealed(random.Random(3).randbytes(1_000))
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(CoxswainError):
            opened(bytes(changed))


def test_a_header_cannot_ask_for_the_whole_memory() -> None:
    raw = sealed(b"x", PHRASE)
    for wish in (b'"memory_kib":99999999', b'"memory_kib":-1', b'"memory_kib":1', b'"memory_kib":1e9', b'"memory_kib":"64"'):
        header = raw[12 : 12 + struct.unpack_from(">I", raw, 8)[0]].replace(b'"memory_kib":64', wish)
        with pytest.raises(Damaged, match="header"):
            opened(MAGIC + struct.pack(">I", len(header)) + header + raw[body_of(raw) - 32 :], PHRASE)
    with pytest.raises(Damaged, match="header"):
        opened(MAGIC + struct.pack(">I", 2**31) + b"{}")


@given(st.binary(max_size=300))
def test_bytes_that_are_no_backup_are_refused(raw: bytes) -> None:
    for text in (raw, MAGIC + raw, MAGIC + struct.pack(">I", len(raw)) + raw):
        with pytest.raises(CoxswainError):
            opened(text)


def test_it_can_be_read_from_a_pipe() -> None:
    plain = random.Random(4).randbytes(CHUNK + 100)
    raw = sealed(plain)

    class Dribble(io.RawIOBase):
        at = 0

        def read(self, size: int = -1) -> bytes:
            part = raw[self.at : self.at + min(size, 7_000)]
            self.at += len(part)
            return part

    assert b"".join(open_sealed(Dribble(), KEY)) == plain  # type: ignore[arg-type]


# -- what is inside


def packed(*frames: Frame) -> bytes:
    out = io.BytesIO()
    writer = Writer(out, {"a": 1})
    for frame in frames:
        match frame:
            case Begin(name):
                writer.begin(name)
            case Data(content):
                writer.data(content)
            case Page(offset, content):
                writer.page(offset, content)
            case Manifest():
                pass
    writer.finish()
    return out.getvalue()


FRAMES = st.lists(
    st.one_of(
        st.builds(Data, st.binary(min_size=1, max_size=2_000)),
        st.builds(Page, st.integers(0, 2**63), st.binary(max_size=2_000)),
        st.builds(Begin, st.text(st.characters(codec="utf-8"), max_size=20)),
    ),
    max_size=20,
)


@given(FRAMES, st.integers(1, 100))
@settings(max_examples=60)
def test_frames_come_back_in_order(frames: list[Frame], step: int) -> None:
    written = [Begin("first"), *frames]
    raw = packed(*written)
    found = list(read_frames(raw[i : i + step] for i in range(0, len(raw), step)))
    assert found == [Manifest({"a": 1}), *written]


def test_large_content_is_cut_into_frames_and_memory_stays_small() -> None:
    content = os.urandom(1_000) * 20_000
    raw = packed(Begin("big"), Data(content))
    sizes = [len(frame.content) for frame in read_frames([raw]) if isinstance(frame, Data)]
    assert sum(sizes) == len(content) and max(sizes) <= 4 * 1024 * 1024


@given(st.binary(max_size=200))
def test_content_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(Damaged):
        list(read_frames([raw]))


def test_content_without_its_end_is_refused() -> None:
    raw = packed(Begin("a"), Data(b"x" * 1_000), Begin("b"))
    for end in range(len(raw)):
        with pytest.raises(Damaged):
            list(read_frames([raw[:end]]))
    with pytest.raises(Damaged, match="behind the end"):
        list(read_frames([raw, b"more"]))


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../b", "a//b", ".", "a/.", "a\0b", "a\nb", "x" * 300])
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(Damaged):
        safe_name(name)


def test_argon2_takes_its_time() -> None:
    assert envelope._ARGON2["memory_kib"] >= 64 * 1024 and envelope._ARGON2["passes"] >= 3


EARLIER = (
    "Q09YQkFLMQoAAAB8eyJjaHVuayI6MjYyMTQ0LCJrZGYiOiJhcmdvbjJpZCIsImxhbmVzIjoyLCJtZW1vcnlfa2liIjo2NCwicGFzc2VzIjoyLCJz"
    "YWx0IjoiaXkxcUVmbEhaNkpZVldYSnlIc1NMM3c2WEREOUlmZmZDbmVYYnVoN3Rpaz0iffq5MJamfJvEPdCfwxnZxxzCCOr1x1VFLYmkjbLzY1l8"
    "PQC9vB2+nB51l4+RaZQ2p2D0jwZHp16hi84oER3cry9lztY6Vm/gvAEx"
)
"""Sealed with another implementation of Argon2id."""


def test_a_backup_of_an_earlier_release_opens() -> None:
    assert opened(base64.b64decode(EARLIER), PHRASE) == b"made by an earlier release"


@pytest.mark.parametrize(
    ("memory_kib", "passes", "lanes", "key"),
    [
        (64, 1, 1, "e72625e8a56c7f384371aa90f67396c4b940bd8bcce3f5abd2fce7df4c1e6a0a"),
        (64, 2, 2, "0abda4175ec4cea9f16fa7f33e4ee408ef67b8e1eee8b5daccc47f723df8da26"),
        (1024, 3, 4, "46e4130c7d55fdb2627720a70dac83379443b202fdba113636cfd7c7d2fda31e"),
    ],
)
def test_passphrases_become_the_same_keys_everywhere(memory_kib: int, passes: int, lanes: int, key: str) -> None:
    """Vectors made with cryptography's (OpenSSL's) Argon2id, for the passphrase of twenty x and the salt 0..31."""
    header = {"memory_kib": memory_kib, "passes": passes, "lanes": lanes}
    assert envelope._stretched(b"x" * 20, bytes(range(32)), header).hex() == key


def test_several_at_once_in_one_process() -> None:
    raw = [sealed(b"%d" % n, PHRASE) for n in range(4)]
    found = list[bytes]()
    threads = [threading.Thread(target=lambda one=one: found.append(opened(one, PHRASE)), daemon=True) for one in raw]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [b"0", b"1", b"2", b"3"]


def test_too_little_memory_for_a_passphrase_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed(*_args: object) -> bytes:
        raise HashingError("Memory allocation error")

    raw = sealed(b"x", PHRASE)
    monkeypatch.setattr(envelope, "hash_secret_raw", hashed)
    with pytest.raises(Unavailable, match="Memory allocation error"):
        opened(raw, PHRASE)
