"""``certificate_authority``: the only holder of CA keys. It signs, renews and revokes."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from actors.supervision import Actor, Context
from coxswain.audit import record
from coxswain.errors import InvalidInput, NotFound, StoreUnavailable
from coxswain.inventory import host_of
from coxswain.keyring import Keyring
from coxswain.messages import ca as m
from coxswain.messages.audit import Caller, Committed, OutboxGrew
from coxswain.messages.fleet import CertificatesChanged
from coxswain.messages.relays import RelayCredentialsRenewed, RelaySetChanged
from coxswain.pki import (
    Authority,
    Leaf,
    Role,
    device_fingerprint,
    fingerprint,
    hosts_of,
    is_for,
    issue_controller_leaf,
    issue_device_leaf,
    issue_grpc_leaf,
    issue_hop_leaf,
    issue_node_leaf,
    issue_relay_leaf,
    issue_relay_service_leaf,
    issued_by,
    read_csr,
    renewal_due_at,
)
from coxswain.pki.certificates import GRPC_NAME
from coxswain.pki.succession import Line
from coxswain.relay.policy import TargetPolicy, sign_policy
from coxswain.store import Durability, Store
from coxswain.store import fleet as fleet_rows
from coxswain.store import pki as rows
from coxswain.store import servers as server_rows
from coxswain.store import service_certs as service_rows
from coxswain.store import succession as successions
from coxswain.store.versions import expect

__all__ = ["CertificateAuthority"]

_RENEWAL_CHECK_S = 3600.0
_RETRY_S = 60.0


class _CheckRenewal:
    """To itself: is the controller's leaf due?"""


class CertificateAuthority(Actor):
    """See the module."""

    def __init__(self, context: Context, *, store: Store, keyring: Keyring) -> None:
        super().__init__(context)
        self._store = store
        self._keyring = keyring
        self._authorities: dict[Role, Authority] = {}
        self._lines: dict[Role, Line] = {}
        self._leaf: Leaf | None = None
        self._due_at = 0.0
        self._grpc: Leaf | None = None
        self._grpc_due_at = 0.0
        self._hop_leaf: Leaf | None = None
        self._hop_due_at = 0.0
        self._relay: Leaf | None = None
        self._relay_due_at = 0.0

    def started(self) -> None:
        rows.ensure_authorities(self._store, self._keyring, self.context.clock)
        self._succeed()
        with self._store.read() as tx:
            leaf = rows.newest_controller_leaf(tx, self._keyring)
            self._grpc = service_rows.newest_service_leaf(tx, self._keyring, "grpc")
            self._relay = service_rows.newest_service_leaf(tx, self._keyring, "relay")
        if leaf is not None:
            self._use(leaf)
        self._grpc_due_at = self._due(self._grpc) if self._grpc is not None else 0.0
        self._relay_due_at = self._due(self._relay) if self._relay is not None else 0.0
        self._check_renewal()
        self.context.tell("fleet", CertificatesChanged())

    def receive(self, message: Any) -> Any:
        match message:
            case m.GetLinkCredentials():
                return self._credentials()
            case m.GetGrpcCredentials():
                return self._grpc_credentials()
            case m.GetRelayCredentials(host):
                return self._relay_credentials(host)
            case m.IssueDeviceCertificate():
                return self._issue_device(message)
            case m.GetHopCredentials():
                return self._hop_credentials()
            case m.SignTargetPolicy(hostname, targets):
                by = self._hop_credentials()
                policy = TargetPolicy(hostname, int(self._now() * 1000), targets)
                return sign_policy(policy, by.chain_pem, by.key_pem)
            case m.IssueNodeCertificate():
                return self._issue(message)
            case m.IssueRelayCertificate(caller, relay_id, csr_pem):
                return self._issue_relay(caller, relay_id, csr_pem)
            case m.RevokeNodeCertificates():
                return self._revoke(message)
            case m.DescribeCa():
                return self._describe()
            case _CheckRenewal():
                self._check_renewal_or_wait()
        return None

    # -- intermediates

    def _succeed(self) -> None:
        """Takes what steps of their succession are due (``coxswain/pki/succession.py``), and reads who signs now."""
        now = self._now()
        with self._store.write(Durability.ACKNOWLEDGED) as tx:
            root, lines = successions.load_lines(tx, self._keyring, now)
            taken = successions.advance(tx, self._keyring, root, lines, now)
            for role, step, detail in taken:
                system = Caller("certificate_authority", "system")
                record(tx, system, f"ca.{step}", ("authority", role.value), detail, now=now)
            if taken:
                root, lines = successions.load_lines(tx, self._keyring, now)
        self._lines = lines
        self._authorities = {Role.ROOT: root} | {role: line.current for role, line in lines.items()}
        for role, step, detail in taken:
            self.context.log.info("the %s CA: %s; serial %s", role.value, step, detail["serial"])
        if taken:
            self.context.tell("audit_writer", OutboxGrew())

    def _trusted(self, role: Role) -> bytes:
        """What is handed out as trust in an intermediate: also its heir, and those from before that are not over."""
        return self._lines[role].trusted_pem

    def _is_by(self, leaf: Leaf | None, role: Role) -> bool:
        """Whether there is one, from whoever signs now: behind it, that one's certificate is shown."""
        return leaf is not None and issued_by(leaf.certificate, self._authorities[role])

    # -- the controller's leaf

    def _check_renewal_or_wait(self) -> None:
        """Without the store there is no renewal, and no hurry: what is in memory goes on being served."""
        try:
            self._check_renewal()
        except StoreUnavailable as error:
            self.context.log.warning("whether certificates are due is looked at again in %.0f s: %s", _RETRY_S, error)
            self.context.after(_RETRY_S, _CheckRenewal())

    def _check_renewal(self) -> None:
        self._succeed()
        if self._now() >= self._due_at or not self._is_by(self._leaf, Role.CONTROL):
            self._renew()
            self.context.tell("node_links", m.LinkCredentialsRenewed())
        elif self._hop_leaf is not None and self._hop_leaf_is_due():
            self.context.tell("node_links", m.LinkCredentialsRenewed())
        if self._now() >= self._grpc_due_at or not self._is_by(self._grpc, Role.FLEET):
            self._renew_grpc()
            self.context.tell("accounts", m.GrpcCredentialsRenewed())
        if self._relay is not None and (self._now() >= self._relay_due_at or not self._is_by(self._relay, Role.FLEET)):
            self._renew_relay(hosts_of(self._relay))
            self.context.tell("relays", RelayCredentialsRenewed())
        self.context.after(_RENEWAL_CHECK_S, _CheckRenewal())

    def _renew(self) -> None:
        leaf = issue_controller_leaf(self._authorities[Role.CONTROL], self._now())
        with self._store.write(Durability.ACKNOWLEDGED) as tx:
            rows.save_controller_leaf(tx, self._keyring, leaf, self._now())
            system = Caller("certificate_authority", "system")
            target = ("certificate", "controller")
            record(tx, system, "ca.renew", target, {"serial": leaf.serial}, now=self._now())
        self.context.tell("audit_writer", OutboxGrew())
        self.context.log.info("the controller's certificate was renewed; serial %s", leaf.serial)
        self._use(leaf)

    def _use(self, leaf: Leaf) -> None:
        self._leaf = leaf
        self._due_at = self._due(leaf)

    def _due(self, leaf: Leaf) -> float:
        certificate = leaf.certificate
        return renewal_due_at(
            certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp(), self.context.rng
        )

    def _credentials(self) -> m.LinkCredentials:
        leaf = self._leaf
        if leaf is None:
            raise NotFound("the controller has no certificate yet")
        return m.LinkCredentials(
            root_pem=self._authorities[Role.ROOT].pem,
            chain_pem=leaf.pem + self._authorities[Role.CONTROL].pem,
            key_pem=_key_pem(leaf),
            not_after=leaf.certificate.not_valid_after_utc.timestamp(),
        )

    def _hop_leaf_is_due(self) -> bool:
        return self._now() >= self._hop_due_at or not self._is_by(self._hop_leaf, Role.FLEET)

    def _hop_credentials(self) -> m.HopCredentials:
        leaf = self._hop_leaf
        if leaf is None or self._hop_leaf_is_due():
            leaf = self._hop_leaf = issue_hop_leaf(self._authorities[Role.FLEET], self._now())
            self._hop_due_at = self._due(leaf)
        return m.HopCredentials(
            root_pem=self._authorities[Role.ROOT].pem,
            chain_pem=leaf.pem + self._authorities[Role.FLEET].pem,
            key_pem=_key_pem(leaf),
            not_after=leaf.certificate.not_valid_after_utc.timestamp(),
        )

    # -- AccountSync: the leaf that serves it, and those of devices

    def _renew_grpc(self) -> None:
        """Without an audit record: nobody trusts another thing by it; nodes never see it."""
        leaf = issue_grpc_leaf(self._authorities[Role.FLEET], self._now())
        with self._store.write(Durability.ACKNOWLEDGED) as tx:
            service_rows.save_service_leaf(tx, self._keyring, "grpc", leaf, self._now())
            service_rows.purge_service_leaves(tx, self._now())
        self.context.log.info("AccountSync has a new certificate; serial %s", leaf.serial)
        self._grpc, self._grpc_due_at = leaf, self._due(leaf)

    def _grpc_credentials(self) -> m.GrpcCredentials:
        leaf = self._grpc
        if leaf is None:
            raise NotFound("AccountSync has no certificate yet")
        chain, trusted = leaf.pem + self._authorities[Role.FLEET].pem, self._trusted(Role.FLEET)
        return m.GrpcCredentials(chain, _key_pem(leaf), trusted, leaf.certificate.not_valid_after_utc.timestamp())

    # -- the leaf with which the controller is a relay itself: issued when it is first asked for

    def _renew_relay(self, hosts: tuple[str, ...]) -> Leaf:
        """Without an audit record, as that of AccountSync."""
        leaf = issue_relay_service_leaf(self._authorities[Role.FLEET], hosts, self._now())
        with self._store.write(Durability.ACKNOWLEDGED) as tx:
            service_rows.save_service_leaf(tx, self._keyring, "relay", leaf, self._now())
            service_rows.purge_service_leaves(tx, self._now())
        self.context.log.info("the controller has a new certificate as a relay; serial %s", leaf.serial)
        self._relay, self._relay_due_at = leaf, self._due(leaf)
        return leaf

    def _relay_credentials(self, host: str) -> m.RelayCredentials:
        leaf = self._relay
        if leaf is None or (host and not is_for(leaf, host)):
            leaf = self._renew_relay((host,) if host else ())
        with self._store.read() as tx:
            certs = server_rows.relay_certs(tx, self._now())
        return m.RelayCredentials(
            chain_pem=leaf.pem + self._authorities[Role.FLEET].pem,
            key_pem=_key_pem(leaf),
            fleet_ca_pem=self._trusted(Role.FLEET),
            device_ca_pem=self._trusted(Role.DEVICE),
            not_after=leaf.certificate.not_valid_after_utc.timestamp(),
            relay_serials=frozenset(cert.serial for cert in certs if cert.revoked_at is None),
        )

    def _issue_device(self, message: m.IssueDeviceCertificate) -> m.IssuedDeviceCertificate:
        csr = read_csr(message.csr_pem)
        leaf = issue_device_leaf(
            self._authorities[Role.DEVICE], csr.public_key, message.name, self._now(), days=message.days
        )
        return m.IssuedDeviceCertificate(
            pem=leaf.pem,
            fingerprint=device_fingerprint(leaf.pem),
            serial=leaf.serial,
            not_after=leaf.certificate.not_valid_after_utc.timestamp(),
            fleet_ca_pem=self._trusted(Role.FLEET),
            root_fingerprint=fingerprint(self._authorities[Role.ROOT].certificate),
            ignored=csr.ignored,
        )

    # -- nodes' leaves

    def _issue(self, message: m.IssueNodeCertificate) -> Committed[m.IssuedNodeCertificate]:
        csr, node_id = read_csr(message.csr_pem), message.node_id
        with self._store.write(Durability.ACKNOWLEDGED) as tx:
            expect(tx, message.seen)
            node = fleet_rows.get_node(tx, node_id, now=self._now())
            if node is None:
                raise NotFound(f"node: there is no node with the id {node_id[:80]!r}", remedy="See: cox nodes list")
            if not node.control_addr:
                raise InvalidInput(f"node {node.name} has no address to put into its certificate; edit it first")
            leaf = issue_node_leaf(self._authorities[Role.FLEET], csr.public_key, host_of(node.control_addr), self._now())
            rows.insert_node_cert(tx, node_id, leaf, self._now())
            detail = {"name": node.name, "ignored": list(csr.ignored)} | _issued_detail(leaf)
            outbox_id = record(tx, message.caller, "node.enroll", ("node", node_id), detail, now=self._now())
        self._announce(node_id)
        issued = m.IssuedNodeCertificate(
            node_id=node_id,
            serial=leaf.serial,
            server_name=leaf.server_name,
            not_after=leaf.certificate.not_valid_after_utc.timestamp(),
            node_crt=leaf.pem + self._authorities[Role.FLEET].pem,
            ca_crt=self._trusted(Role.CONTROL),
            ignored=csr.ignored,
        )
        return Committed(issued, outbox_id)

    def _issue_relay(self, caller: Caller, relay_id: str, csr_pem: bytes) -> Committed[m.IssuedRelayCertificate]:
        csr = read_csr(csr_pem)
        with self._store.write(Durability.ACKNOWLEDGED) as tx:
            relay = next((r for r in server_rows.list_relays(tx) if r.id == relay_id), None)
            if relay is None or not relay.hostname:
                raise NotFound(f"relay: there is none with the id {relay_id[:80]!r} and a hostname")
            leaf = issue_relay_leaf(self._authorities[Role.FLEET], csr.public_key, relay.hostname, self._now())
            server_rows.insert_relay_cert(tx, relay_id, leaf, self._now())
            detail = {"name": relay.name} | _issued_detail(leaf)
            outbox_id = record(tx, caller, "relay.enroll", ("relay", relay_id), detail, now=self._now())
        self.context.tell("audit_writer", OutboxGrew())
        self.context.tell("relays", RelaySetChanged())
        issued = m.IssuedRelayCertificate(
            relay_id=relay_id,
            serial=leaf.serial,
            hostname=relay.hostname,
            not_after=leaf.certificate.not_valid_after_utc.timestamp(),
            relay_crt=leaf.pem + self._authorities[Role.FLEET].pem,
            fleet_ca_crt=self._trusted(Role.FLEET),
            device_ca_crt=self._trusted(Role.DEVICE),
        )
        return Committed(issued, outbox_id)

    def _revoke(self, message: m.RevokeNodeCertificates) -> Committed[tuple[str, ...]]:
        node_id, serial, reason = message.node_id, message.serial, message.reason
        with self._store.write(Durability.ACKNOWLEDGED) as tx:
            expect(tx, message.seen)
            if fleet_rows.get_node(tx, node_id, now=self._now()) is None:
                raise NotFound(f"node: there is no node with the id {node_id[:80]!r}", remedy="See: cox nodes list")
            revoked = rows.revoke_node_certs(tx, node_id, serial, reason, self._now())
            if not revoked:
                which = "valid certificate" if serial is None else f"valid certificate with the serial {serial[:60]}"
                raise NotFound(f"node {node_id} has no {which}", remedy="See: cox ca show")
            detail = {"serials": list(revoked), "reason": reason}
            outbox_id = record(tx, message.caller, "node.revoke", ("node", node_id), detail, now=self._now())
        self._announce(node_id)
        return Committed(revoked, outbox_id)

    def _announce(self, node_id: str) -> None:
        self.context.tell("fleet", CertificatesChanged(node_id))
        self.context.tell("audit_writer", OutboxGrew())

    # -- questions

    def _describe(self) -> m.CaView:
        authorities = [_view(role, "signs", authority.certificate) for role, authority in sorted(self._authorities.items())]
        for role, line in self._lines.items():
            authorities += [_view(role, "heir", line.heir.certificate)] if line.heir is not None else []
            authorities += [_view(role, "retired", certificate) for certificate in line.retired]
        leaves = []
        if self._leaf is not None:
            end = self._leaf.certificate.not_valid_after_utc.timestamp()
            due = self._now() >= self._due_at
            leaves.append(m.LeafView("controller", self._leaf.serial, "", end, due, None))
        if self._grpc is not None:
            end = self._grpc.certificate.not_valid_after_utc.timestamp()
            leaves.append(m.LeafView("grpc", self._grpc.serial, GRPC_NAME, end, self._now() >= self._grpc_due_at, None))
        handed_out = self._lines[Role.CONTROL].published_at  # a node that has an older one does not trust the heir yet
        if self._relay is not None:
            end, due = self._relay.certificate.not_valid_after_utc.timestamp(), self._now() >= self._relay_due_at
            leaves.append(m.LeafView("relay", self._relay.serial, ", ".join(hosts_of(self._relay)), end, due, None))
        with self._store.read() as tx:
            for c in (*rows.node_certs(tx, self._now()), *server_rows.relay_certs(tx, self._now())):
                due = self._now() >= c.not_before + (c.not_after - c.not_before) * 2 / 3 or c.not_before < handed_out
                leaves.append(m.LeafView(c.node_id, c.serial, c.server_name, c.not_after, due, c.revoked_at))
        return m.CaView(tuple(authorities), tuple(leaves), self._keyring.source.value)

    def _now(self) -> float:
        return self.context.clock.now()


def _issued_detail(leaf: Leaf) -> dict[str, Any]:
    """For the audit record; a restore of an older backup learns of the certificate from it (``coxswain.backup.replay``)."""
    return {"serial": leaf.serial, "not_after": int(leaf.certificate.not_valid_after_utc.timestamp())}


def _key_pem(leaf: Leaf) -> bytes:
    if leaf.key is None:
        raise NotFound("this leaf's key is elsewhere")
    return leaf.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _view(role: Role, state: str, certificate: x509.Certificate) -> m.AuthorityView:
    return m.AuthorityView(
        role=role.value,
        state=state,
        subject=certificate.subject.rfc4514_string(),
        serial=str(certificate.serial_number),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        fingerprint=fingerprint(certificate),
    )
