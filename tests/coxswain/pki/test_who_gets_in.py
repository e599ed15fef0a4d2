"""Real TLS between real gRPC ends: who may drive a node, and whom the controller takes for a node.

Installed on the node is what the controller hands out: leaf and Fleet CA as ``node.crt``, the Control CA as ``ca.crt``.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from dataclasses import dataclass

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coxswain.agent.fleet_sim import SimFleet
from coxswain.pki import (
    Authority,
    Role,
    create_authorities,
    create_heir,
    issue_controller_leaf,
    issue_hop_leaf,
    issue_node_leaf,
    read_csr,
)
from coxswain.wire.node_control import Deadlines, NodeControl, RpcFailed, channel_options, is_foreign_certificate

CAS = create_authorities(time.time())
FOREIGN = create_authorities(time.time())
HOST = "127.0.0.1"


@dataclass
class Identity:
    """What one end presents: PEM chain and key."""

    chain: bytes
    key: bytes


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, pkcs8, serialization.NoEncryption())


def controller(authority: Authority = CAS[Role.CONTROL], *, with_intermediate: bool = True) -> Identity:
    leaf = issue_controller_leaf(authority, time.time())
    assert leaf.key is not None
    return Identity(leaf.pem + (authority.pem if with_intermediate else b""), pem(leaf.key))


def for_hops() -> Identity:
    leaf = issue_hop_leaf(CAS[Role.FLEET], time.time())
    assert leaf.key is not None
    return Identity(leaf.pem + CAS[Role.FLEET].pem, pem(leaf.key))


def client(
    authority: Authority,
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    *,
    days: tuple[int, int] = (-1, 300),
    san: str = "",
) -> Identity:
    """A leaf as another part of the platform holds it: a device's, a relay's, an old controller's."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coxswain-controller")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
    )
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(san)]), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA384())
    return Identity(certificate.public_bytes(serialization.Encoding.PEM) + authority.pem, pem(key))


BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)

DRIVERS = {
    "the controller": (controller(), True),
    "the controller, without the intermediate": (controller(with_intermediate=False), True),
    "a device": (client(CAS[Role.DEVICE]), False),
    "a relay": (client(CAS[Role.FLEET], BOTH), False),
    "another node": (client(CAS[Role.FLEET], SERVER), False),
    "a controller leaf of the Fleet CA, as existing controllers have it": (client(CAS[Role.FLEET]), False),
    "what the controller shows to relays": (for_hops(), False),
    "an expired controller": (client(CAS[Role.CONTROL], days=(-400, -1)), False),
    "the controller of another fleet": (controller(FOREIGN[Role.CONTROL]), False),
    "a client of the Control CA without the right to be one": (client(CAS[Role.CONTROL], SERVER), False),
    "nobody": (None, False),
}


async def ask(port: int, identity: Identity | None, server_name: str, root: bytes = CAS[Role.ROOT].pem) -> None:
    """One GetStatus. Raises ``RpcFailed``."""
    credentials = grpc.ssl_channel_credentials(
        root, identity.key if identity else None, identity.chain if identity else None
    )
    channel = grpc.aio.secure_channel(f"{HOST}:{port}", credentials, channel_options(HOST, server_name))
    async with channel:
        await NodeControl(channel, Deadlines(read=10)).get_status()


def sign(index: int, csr: bytes) -> tuple[bytes, bytes]:
    del index
    leaf = issue_node_leaf(CAS[Role.FLEET], read_csr(csr).public_key, HOST, time.time())
    return leaf.pem + CAS[Role.FLEET].pem, CAS[Role.CONTROL].pem


def name_of(chain: bytes) -> str:
    names = x509.load_pem_x509_certificate(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)[-1]


@pytest.mark.parametrize("who", DRIVERS)
def test_who_may_drive_a_node(who: str) -> None:
    identity, welcome = DRIVERS[who]

    async def body() -> None:
        issued: list[bytes] = []

        def signing(index: int, csr: bytes) -> tuple[bytes, bytes]:
            chain, anchors = sign(index, csr)
            issued.append(chain)
            return chain, anchors

        async with SimFleet(1, sign=signing) as fleet:
            if welcome:
                await ask(fleet[0].port, identity, name_of(issued[0]))
                return
            with pytest.raises(RpcFailed) as refused:
                await ask(fleet[0].port, identity, name_of(issued[0]))
            assert refused.value.code is grpc.StatusCode.UNAVAILABLE
            assert not is_foreign_certificate(refused.value), "it was the node that refused"

    asyncio.run(body())


HEIR = create_heir(Role.CONTROL, CAS[Role.ROOT], time.time())


@pytest.mark.parametrize("given_both", [True, False])
@pytest.mark.parametrize("authority", [CAS[Role.CONTROL], HEIR], ids=["the present one", "its heir"])
def test_a_node_that_was_given_both_is_driven_by_either(authority: Authority, given_both: bool) -> None:
    """They have the same name. Whoever was not given the heir refuses it, so it must not sign before."""

    async def body() -> None:
        issued: list[bytes] = []

        def signing(index: int, csr: bytes) -> tuple[bytes, bytes]:
            chain, anchors = sign(index, csr)
            issued.append(chain)
            return chain, anchors + HEIR.pem if given_both else anchors

        async with SimFleet(1, sign=signing) as fleet:
            asking = ask(fleet[0].port, controller(authority), name_of(issued[0]))
            if given_both or authority is not HEIR:
                await asking
                return
            with pytest.raises(RpcFailed):
                await asking

    asyncio.run(body())


async def served(chain: bytes, key: bytes, server_name: str) -> None:
    """A node presents ``chain``; the controller asks for ``server_name``."""
    fleet = SimFleet(1)
    fleet[0].install(chain, CAS[Role.CONTROL].pem, key=key)
    async with fleet:
        await ask(fleet[0].port, controller(), server_name)


def test_the_controller_takes_nobody_else_for_the_node() -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    def leaf(authority: Authority = CAS[Role.FLEET]) -> tuple[bytes, str]:
        made = issue_node_leaf(authority, key.public_key(), HOST, time.time())
        return made.pem + authority.pem, made.server_name

    mine, name = leaf()
    earlier, _ = leaf()
    foreign, foreign_name = leaf(FOREIGN[Role.FLEET])
    device = client(CAS[Role.DEVICE], san=name)
    relay = client(CAS[Role.FLEET], BOTH, san="relay.example")
    asyncio.run(served(mine, pem(key), name))
    impostors = {
        "an earlier certificate of the same host, or another node's": (earlier, pem(key), name),
        "a node of another fleet": (foreign, pem(key), foreign_name),
        "a device under the node's name": (device.chain, device.key, name),
        "a relay": (relay.chain, relay.key, name),
    }
    for who, (chain, its_key, wanted) in impostors.items():
        with pytest.raises(RpcFailed) as refused:
            asyncio.run(served(chain, its_key, wanted))
        assert is_foreign_certificate(refused.value), f"{who}: {refused.value}"
