"""A fleet's certificates and a client for driving real agents over mTLS."""

import asyncio
import base64
import contextlib
import datetime as dt
import inspect
import ipaddress
import os
import random
import time
from dataclasses import dataclass, field

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before gRPC is imported: refused handshakes are the point of tests here

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku
from cryptography.x509.oid import NameOID

from coxswain.agent.fleet_sim import SimFleet
from coxswain.clock import ManualClock
from coxswain.wire.node_control import Deadlines, NodeControl, RpcFailed
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

NAME = "node.test"
OPEN_CHANNELS = []
"""Closed at the end of each test: gRPC would go on calling a loop that is gone."""


def _name(cn):
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "T"), x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def pem(thing):
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM)
    return thing.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@dataclass
class Authority:
    """A CA of one level; its certificate is anchor for nodes and for clients."""

    cn: str = "Test CA"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: x509.Certificate = None

    def __post_init__(self):
        self.certificate = self._build(_name(self.cn), self.key.public_key(), ca=True)

    def _build(self, subject, public, *, ca=False, eku=(), names=(), days=30):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(_name(self.cn))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=60 if days < 0 else 0, minutes=5))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if eku:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(eku)), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    @property
    def anchor(self):
        return pem(self.certificate)

    def sign_node(self, csr_pem):
        """Returns the PEM chain for a node's CSR."""
        csr = x509.load_pem_x509_csr(csr_pem)
        assert csr.is_signature_valid
        names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return pem(self._build(_name("node"), csr.public_key(), eku=[Eku.SERVER_AUTH], names=names))

    def for_fleet(self, _index, csr_pem):
        """As ``SimFleet`` wants it."""
        return self.sign_node(csr_pem), self.anchor

    def client(self, cn="coxswain-controller", eku=(Eku.CLIENT_AUTH,), days=30):
        """Returns (key PEM, chain PEM)."""
        key = ec.generate_private_key(ec.SECP256R1())
        return pem(key), pem(self._build(_name(cn), key.public_key(), eku=eku, days=days))

    def channel(self, address, *, client=None, trust=None):
        key, chain = client or self.client()
        credentials = grpc.ssl_channel_credentials(trust or self.anchor, key, chain)
        options = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.secure_channel(address, credentials, options=options)
        OPEN_CHANNELS.append(channel)
        return channel

    def control(self, address, **kwargs):
        return NodeControl(self.channel(address, **kwargs), Deadlines(5.0, 5.0, 10.0))


@pytest.fixture(scope="session")
def authority():
    return Authority()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Coroutine tests run on a loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def run():
        try:
            await pyfuncitem.obj(**arguments)
        finally:
            channels, OPEN_CHANNELS[:] = OPEN_CHANNELS[:], []
            await asyncio.gather(*(channel.close() for channel in channels))

    asyncio.run(run())
    return True


def key(number):
    """A well-formed WireGuard key."""
    return base64.b64encode(random.Random(number).randbytes(32)).decode()


def peer(number, **fields):
    given = {"id": f"per_{number}", "protocol": pb.PROTOCOL_AMNEZIAWG, "public_key": key(number)}
    return pb.Peer(**(given | {"allowed_ips": [f"10.7.{number // 250}.{number % 250 + 1}/32"]} | fields))


def awg_push(revision, peers):
    config = pb.AmneziaWGConfig(peers=peers).SerializeToString()
    return pb.PushConfigRequest(protocol=pb.PROTOCOL_AMNEZIAWG, revision=revision, config=config)


async def refused(call):
    """Returns (code, details) of a call that must fail."""
    try:
        answer = await call
    except RpcFailed as failure:
        return failure.code, failure.details
    raise AssertionError(f"was answered: {answer}")


async def eventually(predicate, patience=10.0):
    deadline = time.monotonic() + patience
    while not (result := predicate()):
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.005)
    return result


async def read_events(stream, count, patience=10.0):
    async def read():
        return [await stream.read() for _ in range(count)]

    return await asyncio.wait_for(read(), patience)


@contextlib.asynccontextmanager
async def one_node(authority, **options):
    """A running node with a clock that stands still, and a client of it. Nothing polls but the test."""
    clock = ManualClock()
    async with SimFleet(1, sign=authority.for_fleet, clock=clock, observe=False, **options) as fleet:
        yield Lab(clock, fleet, fleet[0], authority.control(fleet[0].address))


@dataclass
class Lab:
    clock: ManualClock
    fleet: SimFleet
    node: object
    control: NodeControl

    async def subscribe(self):
        before = self.node.hub.subscribers
        stream = self.control.watch_events()
        await eventually(lambda: self.node.hub.subscribers > before)
        return stream


class Tools:
    """What test modules of this directory use."""

    key, peer, awg_push, refused = staticmethod(key), staticmethod(peer), staticmethod(awg_push), staticmethod(refused)
    eventually, read_events = staticmethod(eventually), staticmethod(read_events)
    one_node, Authority = staticmethod(one_node), Authority


@pytest.fixture(scope="session")
def t():
    return Tools
