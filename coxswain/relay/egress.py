"""The egress role: one hop of a control path (relay-contract.md 5, the relay's side).

The controller comes with mutual TLS and opens yamux streams; on each it names a target, which is dialled, and bytes are
passed on. There is no answer to the line: every failure is the end of the stream, with nothing sent. Beat: any number of
sessions at once, so that a second connection never hangs, a deadline for everything that a stranger could leave open, no
service for whoever stole another relay's certificate, and where the controller says which targets are allowed, on a
substream of its own (``coxswain.relay.policy``), no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl

from cryptography import x509
from cryptography.x509.oid import NameOID

from coxswain.errors import CoxswainError
from coxswain.pki.certificates import RELAY_ORGANIZATION
from coxswain.relay.byte_stream import ByteStream, SocketStream, splice
from coxswain.relay.policy import ANNOUNCE, MOST_BYTES, SAYS_ITSELF, PolicyFile, StalePolicy
from coxswain.relay.stream_tls import tls_over
from coxswain.relay.targets import MAX_TARGET, Allowed, AllowList, dial
from coxswain.relay.yamux import Limits, Session, SessionClosed, Stream, Timing

__all__ = ["EgressRelay", "read_line"]

LINE_S = 60.0
"""Seconds in which a new stream must name its target."""

POLICY_S = 30.0
"""Seconds in which a policy must have come."""

_LIMITS = Limits(max_streams=2048)


class EgressRelay:
    """Handles the connections of one listener; ``serve`` is for ``Listener``."""

    def __init__(
        self,
        context: ssl.SSLContext,
        log: logging.Logger,
        *,
        allowed: Allowed | None = None,
        timing: Timing | None = None,
        line_s: float = LINE_S,
    ) -> None:
        self._context = context
        self._log = log
        self._allowed = allowed or AllowList(())
        self._timing = timing
        self._line_s = line_s
        self._one_policy = asyncio.Semaphore(1)  # at a time: each may have 4 MB

    async def serve(self, stream: SocketStream) -> None:
        """One connection, from the handshake to its end."""
        over = await tls_over(stream, self._context, server_name=None)
        if _is_relay(over.peer_certificate):
            self._log.warning("[egress] %s came with the certificate of a relay, not of the controller", stream.peer)
            return
        async with Session(over, client=False, timing=self._timing, limits=_LIMITS) as session:
            self._log.info("[egress] coxswain connected from %s", stream.peer)
            hops: set[asyncio.Task[None]] = set()
            try:
                while True:
                    task = asyncio.create_task(self._hop(await session.accept()))
                    hops.add(task)
                    task.add_done_callback(hops.discard)
            except SessionClosed as error:
                self._log.info("[egress] session ended: %s", error)
            finally:
                for task in list(hops):
                    task.cancel()
                await asyncio.gather(*hops, return_exceptions=True)

    async def _hop(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(self._line_s):
                line = await read_line(stream)
            if line.startswith(ANNOUNCE):
                await self._take_policy(stream, line.removeprefix(ANNOUNCE))
                return
            onward = await dial(line, self._allowed)
        except (OSError, CoxswainError, ValueError):
            stream.close()  # no reason is given (5.2)
            return
        except asyncio.CancelledError:
            stream.close()
            raise
        await splice(stream, onward)

    async def _take_policy(self, stream: Stream, length: str) -> None:
        """Answers with one line, and closes. Raises ``ValueError``, ``OSError``: it did not come whole."""
        if not (length.isdigit() and int(length) <= MOST_BYTES):
            raise ValueError("no length")
        async with self._one_policy, asyncio.timeout(POLICY_S):
            await stream.write(b"go\n")
            document = bytearray()
            while len(document) < int(length):
                part = await stream.read(int(length) - len(document))
                if not part:
                    raise ValueError("cut off")
                document += part
            await stream.write(f"{self._verdict(bytes(document))[:200]}\n".encode())
        stream.close()

    def _verdict(self, document: bytes) -> str:
        if not isinstance(self._allowed, PolicyFile):
            return SAYS_ITSELF
        try:
            self._allowed.accept(document)
        except StalePolicy as error:
            return f"old {error.in_force}"
        except (CoxswainError, OSError) as error:
            self._log.warning("[egress] a target policy is not taken: %s", error)
            return f"no {error}"
        return "ok"


def _is_relay(der: bytes | None) -> bool:
    """Whether a certificate that TLS has verified is a relay's: those are for clients as well, of tunnels (1.3)."""
    subject = x509.load_der_x509_certificate(der or b"").subject
    return any(a.value == RELAY_ORGANIZATION for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))


async def read_line(stream: ByteStream) -> str:
    """The target line without its end; not a byte more is read. Raises ``ValueError`` when it is none."""
    line = bytearray()
    while len(line) <= MAX_TARGET:
        byte = await stream.read(1)
        if not byte:
            break
        if byte == b"\n":
            with contextlib.suppress(UnicodeDecodeError):
                return line.decode("ascii")
            break
        line += byte
    raise ValueError("no target line")
