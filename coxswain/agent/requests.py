"""From wire messages to what a data plane takes, checked before anything is touched (node-contract.md 9.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from coxswain.agent.dataplane import CLIENT_MTU, Dump, LinkConfig, PeerConfig
from coxswain.agent.state import XrayClient, XrayConfig
from coxswain.errors import InvalidInput
from coxswain.model import Obfuscation
from coxswain.netpolicy import Policy, Transit, check
from coxswain.ports import PortRange
from coxswain.wire import validate
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

__all__ = [
    "checked_policy",
    "client_id",
    "link_config",
    "obfuscation_message",
    "peer_config",
    "peer_configs",
    "peer_state",
    "policy_from",
    "xray_client",
    "xray_config",
    "xray_peer_state",
]

_RESERVED_TABLES = frozenset({253, 254, 255})
"""default, main and local (ip-route(8)): a transit's default route in one of them would be the host's."""

_LEAST_MTU = 68
"""What IPv4 asks of every link, and the least that Linux takes (RFC 791, section 3.2)."""

_MOST_MTU = 65_535

_SOCKET = "/@"
"""How the path of a unix socket begins, as ``dest`` of an inbound (node-contract.md 8.3)."""

_BARE_UUID = re.compile(r"[0-9a-fA-F]{32}")

_OBFUSCATION_FIELDS = tuple(Obfuscation.__dataclass_fields__)


def peer_config(field: str, peer: pb.Peer) -> PeerConfig:
    """Raises ``InvalidInput``. Of the endpoints the first non-empty one counts (node-contract.md 1.3)."""
    return PeerConfig(
        validate.key(f"{field}.public_key", peer.public_key),
        validate.allowed_ips(f"{field}.allowed_ips", tuple(peer.allowed_ips)),
        validate.preshared_key(f"{field}.preshared_key", peer.preshared_key),
        validate.endpoint(f"{field}.endpoints", next((e for e in peer.endpoints if e), "")),
    )


def peer_configs(peers: Iterable[pb.Peer]) -> tuple[PeerConfig, ...]:
    """A whole push. Raises ``InvalidInput``.

    Of a key that comes twice, the last one counts: an interface has one peer for it, and what is written last is in force
    (node-contract.md 4.4, 4.15).
    """
    configs: dict[str, PeerConfig] = {}
    for position, peer in enumerate(peers):
        config = peer_config(f"peers[{position}]", peer)
        configs.pop(config.public_key, None)
        configs[config.public_key] = config
    return tuple(configs.values())


def peer_state(config: PeerConfig, dump: Dump) -> pb.PeerState:
    """One entry of ListPeers: configured, joined with live (node-contract.md 4.9)."""
    state = pb.PeerState(
        peer=pb.Peer(
            protocol=pb.PROTOCOL_AMNEZIAWG,
            public_key=config.public_key,
            allowed_ips=config.allowed_ips,
            preshared_key=config.preshared_key,
            endpoints=[config.endpoint] if config.endpoint else [],
        )
    )
    live = dump.get(config.public_key)
    if live is not None:
        state.rx_bytes, state.tx_bytes = live.rx_bytes, live.tx_bytes
        if live.last_handshake:
            state.last_handshake.seconds = live.last_handshake
    return state


def policy_from(config: pb.NetworkConfig) -> Policy:
    """Raises ``InvalidInput``."""
    transits = tuple(Transit(t.device_cidr, t.inner_interface, t.mark, t.table) for t in config.transits)
    low, high = config.endpoint_port_min, config.endpoint_port_max
    ports = PortRange(low, high) if low or high else None
    return checked_policy(Policy(config.forwarding, config.masquerade, config.isolation, transits, ports))


def checked_policy(policy: Policy) -> Policy:
    """Raises ``InvalidInput``, first for what the contract checks (7.2), then for syntax."""
    check(policy)
    for position, transit in enumerate(policy.transits):
        where = f"policy.transits[{position}]"
        validate.cidr(f"{where}.device_cidr", transit.device_cidr)
        validate.interface(f"{where}.inner_interface", transit.inner_interface)
        validate.uint32(f"{where}.mark", transit.mark)
        validate.uint32(f"{where}.table", transit.table)
        if transit.table in _RESERVED_TABLES:
            raise InvalidInput(f"{where}.table: {transit.table} is the host's own routing table")
    if policy.ports is not None:
        validate.port("policy.endpoint_port_min", policy.ports.low)
        validate.port("policy.endpoint_port_max", policy.ports.high)
        if policy.ports.low > policy.ports.high:
            raise InvalidInput(
                f"policy.endpoint_port_min: {policy.ports.low} is above endpoint_port_max, {policy.ports.high}"
            )
    return policy


def link_config(config: pb.InnerLinkConfig) -> LinkConfig:
    """Raises ``InvalidInput``, in the contract's order of checks (node-contract.md 4.12)."""
    if not config.interface:
        raise InvalidInput("config.interface: is empty")
    if not config.HasField("exit") or not config.exit.public_key:
        raise InvalidInput("config.exit.public_key: is empty")
    if not config.exit.endpoints:
        raise InvalidInput("config.exit.endpoints: is empty")
    obfuscation = obfuscation_from(config.peer_obfuscation)
    return LinkConfig(
        obfuscation=validate.obfuscation("config.peer_obfuscation", obfuscation),
        interface=validate.interface("config.interface", config.interface),
        listen_port=validate.port("config.listen_port", config.listen_port, zero=True),
        mtu=_mtu("config.mtu", config.mtu),
        exit=peer_config("config.exit", config.exit),
    )


def _mtu(field: str, value: int) -> int:
    """Whatever a controller thinks fit for its network; 0: the default. Beyond 65535 the existing agent takes the rest of a
    division (node-contract.md 4.12), which nobody means.
    """
    if value and not _LEAST_MTU <= value <= _MOST_MTU:
        raise InvalidInput(f"{field}: {value} is not an MTU: {_LEAST_MTU} to {_MOST_MTU}, or 0 for {CLIENT_MTU}")
    return value or CLIENT_MTU


def obfuscation_from(message: pb.AmneziaWGObfuscation) -> Obfuscation:
    return Obfuscation(**{name: getattr(message, name) for name in _OBFUSCATION_FIELDS})


def obfuscation_message(obfuscation: Obfuscation) -> pb.AmneziaWGObfuscation:
    """The wire form of a set."""
    return pb.AmneziaWGObfuscation(**{name: getattr(obfuscation, name) for name in _OBFUSCATION_FIELDS})


def client_id(peer: pb.Peer) -> str:
    """A VLESS client's UUID: ``public_key``, else ``id`` (node-contract.md 1.3)."""
    return peer.public_key or peer.id


def xray_client(field: str, peer: pb.Peer) -> XrayClient:
    """Raises ``InvalidInput``. A UUID may be without its hyphens; what xray-core would make *another* UUID of may not be."""
    client = client_id(peer)
    if not _BARE_UUID.fullmatch(client):
        validate.uuid(f"{field}.public_key", client)
    return XrayClient(client, validate.flow(f"{field}.flow", peer.flow))


def xray_config(config: pb.XRayRealityConfig) -> XrayConfig:
    """Raises ``InvalidInput`` for what xray-core would refuse, and for ids that it would misread (8.3)."""
    validate.port("port", config.port)
    _dest(config.dest)
    if not config.server_names:
        raise InvalidInput("server_names: needs at least one name")
    if not config.short_ids:
        raise InvalidInput("short_ids: needs at least one; an empty string is one")
    return XrayConfig(
        config.port,
        config.dest,
        tuple(validate.printable(f"server_names[{i}]", name) for i, name in enumerate(config.server_names)),
        tuple(validate.short_id(f"short_ids[{i}]", short) for i, short in enumerate(config.short_ids)),
        tuple(xray_client(f"peers[{i}]", peer) for i, peer in enumerate(config.peers)),
    )


def _dest(dest: str) -> None:
    """A port alone is one of the node's own; a path is a unix socket's (node-contract.md 8.3)."""
    if not dest:
        raise InvalidInput("dest: is empty; host:port would do")
    if dest[0] in _SOCKET:
        validate.printable("dest", dest)
    elif dest.isascii() and dest.isdigit():
        validate.endpoint("dest", f"localhost:{dest}")
    else:
        validate.endpoint("dest", dest)


def xray_peer_state(client: XrayClient) -> pb.PeerState:
    """One entry of ListPeers(XRAY_REALITY)."""
    peer = pb.Peer(protocol=pb.PROTOCOL_XRAY_REALITY, id=client.id, public_key=client.id, flow=client.flow)
    return pb.PeerState(peer=peer)
