"""An existing controller, towards relays: frames, layers and TLS from relay-contract.md itself, none of it by our own code,
so that a mistake in that shows. It is strict: what an existing program would end a session for, fails the test.

Everything blocks and belongs to one thread: who waits for a stream takes in whatever else comes meanwhile.
"""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["Circuit", "MuxStream", "Plain", "Tls", "Wire", "Yamux", "context", "exactly"]

DATA, WINDOW, PING, GOAWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
CREDIT = 262_144


class Wire(Protocol):
    def recv(self) -> bytes:
        """What has come; waits for it. Empty: the other side sends no more."""
        ...

    def sendall(self, data: bytes) -> None: ...


class Plain:
    """A TCP connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    @classmethod
    def to(cls, address: str) -> Plain:
        host, _, port = address.rpartition(":")
        return cls(socket.create_connection((host, int(port)), timeout=30))

    def recv(self) -> bytes:
        return self.socket.recv(65_536)

    def sendall(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()


def context(
    directory: Path, chain: str, key: str, anchor: str, *, server: bool = False, alpn: tuple[str, ...] = ()
) -> ssl.SSLContext:
    """Of files in a directory: TLS 1.3 and nothing older, both sides with a certificate (1.3)."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.load_verify_locations(directory / anchor)
    made.load_cert_chain(directory / chain, directory / key)
    if alpn:
        made.set_alpn_protocols(list(alpn))
    return made


class Tls:
    """TLS over any wire. ``name`` None: the server's side."""

    def __init__(self, wire: Wire, made: ssl.SSLContext, name: str | None) -> None:
        self._wire = wire
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = made.wrap_bio(self._in, self._out, server_side=name is None, server_hostname=name)
        while not self._step(self.tls.do_handshake):
            pass

    def _step(self, action: Any) -> bool:
        try:
            action()
        except ssl.SSLWantReadError:
            self._flush()
            self._feed()
            return False
        self._flush()
        return True

    def _feed(self) -> None:
        data = self._wire.recv()
        if not data:
            raise ConnectionError("the connection ended within TLS")
        self._in.write(data)

    def _flush(self) -> None:
        if self._out.pending:
            self._wire.sendall(self._out.read())

    def recv(self) -> bytes:
        while True:
            try:
                return self.tls.read(65_536)
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLZeroReturnError:
                return b""
            data = self._wire.recv()
            if not data:
                return b""
            self._in.write(data)

    def sendall(self, data: bytes) -> None:
        self.tls.write(data)
        self._flush()


class MuxStream:
    """One stream of a session; a wire."""

    def __init__(self, mux: Yamux, number: int, *, acknowledged: bool) -> None:
        self._mux = mux
        self.number = number
        self.acknowledged = acknowledged
        self.arrived = bytearray()
        self.may_send = self.may_come = CREDIT
        self.consumed = 0
        self.they_ended = self.we_ended = self.dropped = False

    def recv(self) -> bytes:
        while not self.arrived and not self.they_ended and not self.dropped:
            self._mux.pump()
        data = bytes(self.arrived)
        self.arrived.clear()
        self.consumed += len(data)
        if self.consumed >= CREDIT // 2 and not self.they_ended:
            self._mux.send(WINDOW, 0, self.number, self.consumed)
            self.may_come += self.consumed
            self.consumed = 0
        return data

    def sendall(self, data: bytes) -> None:
        while data:
            while not self.may_send:
                self._mux.pump()
            part, data = data[: self.may_send], data[self.may_send :]
            self.may_send -= len(part)
            self._mux.send(DATA, 0, self.number, len(part), part)

    def end(self) -> None:
        assert not self.we_ended
        self.we_ended = True
        self._mux.send(WINDOW, FIN, self.number, 0)


class Yamux:
    """One session (3.2). ``client``: we open streams, with odd ids; else the other side does."""

    def __init__(self, wire: Wire, *, client: bool) -> None:
        self._wire = wire
        self._client = client
        self._inbox = bytearray()
        self._next = 1
        self._pings: list[int] = []
        self.streams: dict[int, MuxStream] = {}
        self.accepted: list[MuxStream] = []
        self.heads: list[bytes] = []
        self.went_away: int | None = None

    def send(self, kind: int, flags: int, stream: int, length: int, body: bytes = b"") -> None:
        self._wire.sendall(struct.pack(">BBHII", 0, kind, flags, stream, length) + body)

    def open(self, first: bytes = b"") -> MuxStream:
        """``first`` goes in one write with the opening, before there is an answer."""
        assert self._client
        stream = self.streams[self._next] = MuxStream(self, self._next, acknowledged=False)
        self._next += 2
        self.send(WINDOW, SYN, stream.number, 0)
        stream.sendall(first)
        return stream

    def accept(self) -> MuxStream:
        while not self.accepted:
            self.pump()
        return self.accepted.pop(0)

    def ping(self, value: int) -> None:
        """Returns when it was answered: only then is a session known to stand (1.3)."""
        self.send(PING, SYN, 0, value)
        while value not in self._pings:
            self.pump()
        self._pings.remove(value)

    def pump(self) -> None:
        """Takes in one frame."""
        version, kind, flags, number, length = struct.unpack(">BBHII", self._take(12, keep=True))
        assert version == 0 and kind <= GOAWAY and flags <= 15
        if kind == PING:
            assert number == 0 and flags in (SYN, ACK)
            if flags == SYN:
                self.send(PING, ACK, 0, length)
            else:
                self._pings.append(length)
        elif kind == GOAWAY:
            assert number == 0
            self.went_away = length
        else:
            self._of_stream(kind, flags, number, length)

    def _of_stream(self, kind: int, flags: int, number: int, length: int) -> None:
        if flags & SYN:
            assert not self._client and number % 2 == 1 and number not in self.streams
            opened = self.streams[number] = MuxStream(self, number, acknowledged=True)
            self.accepted.append(opened)
            self.send(WINDOW, ACK, number, 0)
        stream = self.streams[number]
        if flags & ACK:
            assert not stream.acknowledged, "acknowledged twice"
            stream.acknowledged = True
        if kind == DATA:
            assert not stream.they_ended and length <= stream.may_come, "more than was allowed"
            stream.may_come -= length
            stream.arrived += self._take(length)
        else:
            stream.may_send += length
        if flags & FIN:
            assert not stream.they_ended, "a second FIN ends the whole session"
            stream.they_ended = True
        stream.dropped = stream.dropped or bool(flags & RST)

    def _take(self, count: int, *, keep: bool = False) -> bytes:
        while len(self._inbox) < count:
            data = self._wire.recv()
            if not data:
                raise ConnectionError("the session ended")
            self._inbox += data
        part = bytes(self._inbox[:count])
        del self._inbox[:count]
        if keep:
            self.heads.append(part)
        return part


class Circuit:
    """An onion circuit (6.2 to 6.4). ``hops``: endpoint and public key of each."""

    def __init__(self, hops: list[tuple[str, bytes]], target: str) -> None:
        inner, keys = b"", []
        for position in reversed(range(len(hops))):
            last = position == len(hops) - 1
            address = (target if last else hops[position + 1][0]).encode()
            ephemeral = X25519PrivateKey.generate()
            shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(hops[position][1]))
            key = HKDF(hashes.SHA256(), 32, salt=bytes(32), info=b"pharos-onion-v1 setup").derive(shared)
            plain = struct.pack(">BH", int(last), len(address)) + address + inner
            sealed = ChaCha20Poly1305(key).encrypt(bytes(12), plain, b"")
            inner = ephemeral.public_key().public_bytes_raw() + sealed
            keys.append(key)
        self._wire = Plain.to(hops[0][0])
        self._forward = [_keystream(key, 1) for key in keys]
        self._back = [_keystream(key, 2) for key in keys]
        self._wire.sendall(struct.pack(">H", len(inner)) + inner)

    def sendall(self, data: bytes) -> None:
        for stream in self._forward:
            data = stream.update(data)
        self._wire.sendall(data)

    def recv(self) -> bytes:
        data = self._wire.recv()
        for stream in self._back:
            data = stream.update(data)
        return data

    def close(self) -> None:
        self._wire.close()


def _keystream(key: bytes, direction: int) -> CipherContext:
    return Cipher(ChaCha20(key, bytes(15) + bytes([direction])), None).encryptor()


def exactly(wire: Wire, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = wire.recv()
        assert part, f"it ended after {len(got)} bytes of {count}"
        got += part
    assert len(got) == count
    return got
