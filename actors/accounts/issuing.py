"""Identities that are handed out as files, for devices that cannot use a link (accounts-profiles.md 5.6)."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from actors.accounts.invites import public_relay
from actors.accounts.state import AccountsState
from coxswain.accounts.identity import DeviceIdentity, write_identity
from coxswain.accounts.invites import host_of_relay
from coxswain.accounts.primitives import random_bytes, x25519_public_key
from coxswain.messages import enrolment as m
from coxswain.messages.audit import Committed
from coxswain.messages.ca import IssuedDeviceCertificate, IssueDeviceCertificate
from coxswain.provisioning.checks import check_label
from coxswain.store import accounts as account_rows

__all__ = ["issue"]

_SIGN_S, _FLEET_S = 3.0, 6.0


def issue(state: AccountsState, message: m.IssueIdentity) -> Committed[m.IssuedIdentity]:
    """Its keys never leave this function but in the file. Unlike those of devices that join by a link, the controller has
    seen them.
    """
    name = check_label("name", message.name)
    with state.store.read() as tx:
        user = account_rows.find_user(tx, message.user)
    relay = public_relay(state, message.relay) if user is not None else message.relay  # who is not there, comes first
    key, encryption_key = ec.generate_private_key(ec.SECP256R1()), random_bytes(32)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    common_name = (user.email or user.name) if user is not None else name
    wanted = IssueDeviceCertificate(
        request.public_bytes(serialization.Encoding.PEM),
        common_name or name,
        int(state.settings["accounts.device_cert_days"]),
    )
    leaf: IssuedDeviceCertificate = state.context.ask("certificate_authority", wanted, deadline=_SIGN_S)
    identity = m.NewIdentity(leaf.fingerprint, leaf.serial, leaf.not_after, x25519_public_key(encryption_key))
    ask = m.IssueDevice(message.caller, message.user, name, message.platform, identity, message.path_id)
    done: Committed[m.Claimed] = state.context.ask("fleet", ask, deadline=_FLEET_S)
    text = write_identity(
        DeviceIdentity(
            relay_addr=relay,
            relay_server_name=message.server_name or host_of_relay(relay),
            ca_fingerprint=leaf.root_fingerprint,
            fleet_ca=leaf.fleet_ca_pem.decode(),
            device_cert=leaf.pem.decode(),
            device_key=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
            user=done.value.user_id,
            alias=done.value.user_name,
            signing_public_key=done.value.signer,
            encryption_key=encryption_key,
        )
    )
    return Committed(m.IssuedIdentity(done.value, relay, text), done.outbox_id)
