"""Target policies: where the controller lets a relay of its own connect; signed, counted, and for one relay.

A policy is made by the controller with the key that it shows to relays, whose certificate the Fleet CA signed: what a relay
trusts already. It names the relay, so that nobody gives it to another, and has a serial that only grows, so that an older
one is not taken again. It comes over SSH at onboarding, and from then on over the controller's session with the egress
relay (``coxswain.control_path.announce``); an onion relay beside it reads the same file. Existing relays take none of it,
and existing controllers send none: under one of those a relay does as existing ones do, until a policy comes. Where ours has
set a relay up, its unit says that there has to be one (``REQUIRED``), so that a file that was lost opens nothing.

On a substream of an egress session: ``@targets BYTES``, LF; when ``go`` has come, the document; then ``ok``, ``old SERIAL``
or ``no REASON``, each with LF. Only a relay that agreed on ``TAKES_POLICIES`` is told: to an existing one the line would be
a malformed target.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coxswain.errors import CoxswainError, InvalidInput, Refused
from coxswain.pki.certificates import ORGANIZATION
from coxswain.relay.keys import write_whole
from coxswain.relay.targets import WHERE_ASKED, Allowed, AllowList

__all__ = [
    "ANNOUNCE",
    "FILE_NAME",
    "MOST_BYTES",
    "MOST_TARGETS",
    "REQUIRED",
    "SAYS_ITSELF",
    "TAKES_POLICIES",
    "PolicyFile",
    "StalePolicy",
    "TargetPolicy",
    "read_policy",
    "sign_policy",
]

TAKES_POLICIES = "cox-targets/1"
"""ALPN of an egress session with a relay that takes policies. Existing relays and controllers know no ALPN there
(relay-contract.md 1.3, L4) and agree on none, so they never meet what they do not know.
"""

ANNOUNCE = "@targets "
"""What the line of a substream begins with that brings a policy."""

SAYS_ITSELF = "no where this relay may connect is said by --allow"
"""The answer of one that will take no policy whenever it is asked. Any other refusal may be over the next time."""

FILE_NAME = "targets.policy"

REQUIRED = "COX_RELAY_POLICY", "required"
"""Variable and value in the environment of a relay that does not start without a policy. No flag: the same unit has to do
for an existing relay's program, which would not know it.
"""

MOST_BYTES = 4 << 20
MOST_TARGETS = 65_536
_CONTEXT = b"coxswain relay targets 1\n"
_MOST_SERIAL = 2**63 - 1


class StalePolicy(Refused):
    """A policy that is not newer than the one that is in force, whose serial it holds."""

    def __init__(self, offered: int, in_force: int) -> None:
        super().__init__(f"target policy: serial {offered} is not newer than {in_force}, which is in force")
        self.in_force = in_force


@dataclass(frozen=True, slots=True)
class TargetPolicy:
    """Where one relay may connect.

    Attributes:
        relay: the host in its certificate.
        serial: greater than that of every policy before; the time it was made, in ms, unless that would not be greater.
        targets: as ``AllowList`` takes them; none: nowhere.
    """

    relay: str
    serial: int
    targets: tuple[str, ...]


def sign_policy(policy: TargetPolicy, leaf_pem: bytes, key_pem: bytes) -> bytes:
    """The document. ``leaf_pem``: the certificate that the controller shows to relays; what follows it is passed over."""
    body = json.dumps({"relay": policy.relay, "serial": policy.serial, "targets": policy.targets}, separators=(",", ":"))
    key = serialization.load_pem_private_key(key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput("target policy: is signed with an EC key")
    signature = key.sign(_CONTEXT + body.encode(), ec.ECDSA(hashes.SHA256()))
    leaf = x509.load_pem_x509_certificate(leaf_pem).public_bytes(serialization.Encoding.PEM)
    signed = {"policy": body, "by": leaf.decode("ascii"), "signature": base64.b64encode(signature).decode("ascii")}
    return json.dumps(signed).encode() + b"\n"


def read_policy(document: bytes, fleet_ca_pem: bytes, *, now: float | None) -> TargetPolicy:
    """A policy that the controller has signed.

    Args:
        document: from a stranger.
        fleet_ca_pem: the relay's ``fleet-ca.crt``.
        now: epoch seconds at which the signer's certificate has to be in force; None: it was looked at before.

    Raises:
        Refused: it is none, or somebody else's.
    """
    try:
        signed = _fields(document, {"policy": str, "by": str, "signature": str})
        leaf = x509.load_pem_x509_certificate(signed["by"].encode("ascii"))
        _check_signer(leaf, fleet_ca_pem, now)
        key, body = leaf.public_key(), signed["policy"].encode()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise Refused("target policy: its signer has no EC key")
        key.verify(base64.b64decode(signed["signature"], validate=True), _CONTEXT + body, ec.ECDSA(hashes.SHA256()))
        fields = _fields(body, {"relay": str, "serial": int, "targets": list})
    except InvalidSignature:
        raise Refused("target policy: its signature is not the controller's") from None
    except (ValueError, TypeError, RecursionError, binascii.Error, UnsupportedAlgorithm, x509.ExtensionNotFound):
        raise Refused("target policy: is none") from None
    serial, targets = fields["serial"], fields["targets"]
    if not 0 < serial <= _MOST_SERIAL or len(targets) > MOST_TARGETS or not all(isinstance(t, str) for t in targets):
        raise Refused("target policy: is none")
    return TargetPolicy(fields["relay"], serial, tuple(targets))


def _fields(text: bytes, wanted: dict[str, type]) -> dict[str, Any]:
    """Raises ``ValueError`` for anything but an object with these fields."""
    if len(text) > MOST_BYTES:
        raise ValueError("too long")
    found = json.loads(text)
    if not isinstance(found, dict) or not all(type(found.get(name)) is kind for name, kind in wanted.items()):
        raise ValueError("not these fields")
    return found


def _check_signer(leaf: x509.Certificate, fleet_ca_pem: bytes, now: float | None) -> None:
    """The controller's certificate for hops (relay-contract.md 1.2): of the Fleet CA, for clients only, of its organization.
    Relays' are for servers as well, and of another; nodes' and AccountSync's are for servers.
    """
    if not any(_issued(leaf, authority) for authority in x509.load_pem_x509_certificates(fleet_ca_pem)):
        raise Refused("target policy: its signer's certificate is not of the Fleet CA")
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    organizations = [a.value for a in leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if list(usage) != [ExtendedKeyUsageOID.CLIENT_AUTH] or organizations != [ORGANIZATION]:
        raise Refused("target policy: its signer is not the controller")
    if now is not None and not leaf.not_valid_before_utc.timestamp() <= now <= leaf.not_valid_after_utc.timestamp():
        raise Refused("target policy: its signer's certificate is not in force now; is the clock right?")


def _issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


class PolicyFile:
    """The policy of a relay in its directory; says where it may connect (``Allowed``). Both roles of a host read it.

    Without one it may connect where it is asked to, unless there has to be one. It is looked at again when the file changes.
    One that is not good, or older than what is in force, is not taken, and said once; what is in force stays.
    """

    def __init__(
        self, directory: Path, log: logging.Logger, now: Callable[[], float] = time.time, *, needed: bool = False
    ) -> None:
        """Raises ``Refused``: it is none for this relay, or is ``needed`` and not there. The sentence says what to do."""
        self._path = directory / FILE_NAME
        self._directory = directory
        self._log = log
        self._now = now
        self._stamp = _stamp_of(self._path)
        self._policy: TargetPolicy | None = None
        self._allowed: Allowed = WHERE_ASKED
        try:
            document = self._read()
        except FileNotFoundError:
            self._without(needed=needed)
            return
        except OSError as error:
            raise Refused(f"{self._path}: {error.strerror}") from None
        try:
            self._policy = self._checked(document, now=None)
        except (OSError, CoxswainError) as error:
            raise Refused(f"{self._path}: {error}. Have it written anew: cox relays renew RELAY") from None
        self._allowed = AllowList(self._policy.targets)

    def _without(self, *, needed: bool) -> None:
        if needed:
            raise Refused(
                f"there is no {self._path} from the controller, so this relay would connect to nothing. coxswain puts "
                "it there: cox relays renew RELAY. By hand: --allow TARGET for each place that it may connect to, "
                "or --allow-any"
            )
        self._log.warning(
            "[relay] there is no %s: this relay connects wherever it is asked to, until its controller sends one. "
            "To limit it: --allow TARGET",
            self._path,
        )

    def permits(self, host: str, address: str, port: int) -> bool:
        self._look()
        return self._allowed.permits(host, address, port)

    @property
    def serial(self) -> int:
        """0: there is none."""
        return 0 if self._policy is None else self._policy.serial

    def accept(self, document: bytes) -> None:
        """From the controller: in the file, and in force, when this returns. The same one again is fine.

        Raises:
            StalePolicy: it is older than what is in force.
            Refused: it is not the controller's, or not for this relay.
            OSError: it could not be written; what was in force stays.
        """
        self._look()
        policy = self._newer(document, now=self._now())
        if policy is None:
            return
        write_whole(self._path, document)  # the next look reads what is there then: SSH may have put a newer one
        self._put_in_force(policy)

    def _look(self) -> None:
        stamp = _stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            policy = self._newer(self._read(), now=None)
        except (OSError, CoxswainError) as error:
            self._log.warning("[relay] %s is not taken, the policy before stays: %s", self._path, error)
            return
        if policy is not None:
            self._put_in_force(policy)

    def _put_in_force(self, policy: TargetPolicy) -> None:
        self._allowed, self._policy = AllowList(policy.targets), policy
        self._log.info("[relay] policy %d: %d targets are allowed", policy.serial, len(policy.targets))

    def _newer(self, document: bytes, *, now: float | None) -> TargetPolicy | None:
        """None: it is the one that is in force."""
        policy = self._checked(document, now=now)
        if policy == self._policy:
            return None
        if policy.serial <= self.serial:
            raise StalePolicy(policy.serial, self.serial)
        return policy

    def _checked(self, document: bytes, *, now: float | None) -> TargetPolicy:
        policy = read_policy(document, (self._directory / "fleet-ca.crt").read_bytes(), now=now)
        hosts = _hosts_of((self._directory / "relay.crt").read_bytes())
        if policy.relay.lower() not in hosts:
            raise Refused(f"target policy: is for {policy.relay[:80]!r}, and this is {', '.join(sorted(hosts))}")
        AllowList(policy.targets)  # each can be understood
        return policy

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(MOST_BYTES + 1)


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    """Changes with the file; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _hosts_of(certificate_pem: bytes) -> set[str]:
    """Names and addresses in a relay's certificate, in lower case. Raises ``Refused``."""
    try:
        leaf = x509.load_pem_x509_certificate(certificate_pem)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        raise Refused("relay.crt: is no certificate with a host") from None
    return {str(n).lower() for kind in (x509.DNSName, x509.IPAddress) for n in names.get_values_for_type(kind)}
