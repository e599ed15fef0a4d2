"""What is written on hosts: units, sysctl, the preparation script. All texts here, none elsewhere."""

from __future__ import annotations

__all__ = [
    "CONF_DIRECTORY",
    "GUARD_FILE",
    "NODE",
    "NODE_UNIT",
    "PREPARE",
    "RELAY",
    "RELAY_UNITS",
    "ROOT",
    "SYSCTL",
    "Program",
    "egress_unit",
    "ingress_unit",
    "node_unit",
    "onion_unit",
    "unit_file",
]

from dataclasses import dataclass

from coxswain.inventory import NODE_ACCOUNT
from coxswain.relay.policy import REQUIRED


@dataclass(frozen=True, slots=True)
class Program:
    """Names of one of the two programs on a host (node-contract.md 3.4, relay-contract.md 7.2)."""

    name: str
    binary: str
    directory: str
    key: str
    account: str
    """The system user that it runs as."""

    @property
    def staged(self) -> str:
        return f"{self.binary}.new"

    @property
    def previous(self) -> str:
        """What an upgrade replaced; a rollback puts it back."""
        return f"{self.binary}.previous"


NODE = Program("node", "/usr/local/bin/node", "/etc/node", "/etc/node/node.key", NODE_ACCOUNT)
RELAY = Program("relay", "/usr/local/bin/relay", "/etc/relay", "/etc/relay/relay.key", "cox-relay")

ROOT = "root"

NODE_UNIT = "node.service"
RELAY_UNITS = ("relay.service", "relay-egress.service", "relay-onion.service")
"""Of the roles ingress, egress and onion."""


def unit_file(unit: str) -> str:
    return f"/etc/systemd/system/{unit}"


_MARK = "# Written by coxswain; changes are overwritten by the next upgrade."

_INNER_LINKS = (
    "/bin/sh -c 'for f in /etc/amnezia/amneziawg/awg[1-9]*.conf; do "
    '[ -e "$f" ] || continue; i=$(basename "$f" .conf); '
    'ip link show "$i" >/dev/null 2>&1 || awg-quick up "$i" || true; done\''
)
"""Inner links are there before the agent applies its policy, or an entry node never starts again after a reboot
(node-contract.md 12.1). Failures are ignored: the agent must start in any case.
"""

CONF_DIRECTORY = "/etc/amnezia/amneziawg"
"""Where a node's interfaces have their confs (node-contract.md 3.4)."""

GUARD_FILE = "/etc/node/control.nft"
_GUARD = f"/bin/sh -c '[ ! -e {GUARD_FILE} ] || nft -f {GUARD_FILE}'"
"""Who may reach the control port, after a reboot as well (``coxswain/onboarding/guard.py``)."""

_SANDBOX = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RestrictRealtime=yes
SystemCallArchitectures=native
UMask=0077
"""


_NO_ROOT = """\
ProtectControlGroups=yes
ProtectKernelModules=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
"""
"""What root's tools would want, and ours do not. The kernel itself loads its modules when a tool asks for what they do."""


def _unit(description: str, service: str) -> str:
    return f"""{_MARK}
[Unit]
Description={description}
After=network-online.target
Wants=network-online.target

[Service]
{service}Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
"""


def node_unit(account: str) -> str:
    """``account``: what the agent in place runs as (``coxswain/onboarding/account.py``).

    An agent of ours is no root: to make interfaces and rules it has CAP_NET_ADMIN, for REALITY's port CAP_NET_BIND_SERVICE,
    and nothing else. Userspace WireGuard, on a host without the kernel's, has its sockets in ``/run/wireguard`` and makes
    its interfaces of ``/dev/net/tun``; they outlive a restart.

    Any other agent is root, with what it needs of root's rights and its own directories to write to.

    ``TimeoutStopSec``: a running call is waited for at a stop, and must not block it for 90 s.
    """
    if account != ROOT:
        service = f"""\
User={account}
Group={account}
AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE
ExecStartPre=-{_GUARD}
ExecStart=/usr/local/bin/node run --config-dir /etc/node
KillMode=process
TimeoutStopSec=20
CacheDirectory={account}
CacheDirectoryMode=0700
RuntimeDirectory=wireguard amneziawg
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
ReadWritePaths=/etc/node -{CONF_DIRECTORY}
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
{_SANDBOX}{_NO_ROOT}"""
        return _unit("PharosVPN node agent", service)
    service = f"""\
ExecStartPre=-{_GUARD}
ExecStartPre=-{_INNER_LINKS}
ExecStart=/usr/local/bin/node run --config-dir /etc/node
TimeoutStopSec=20
CacheDirectory=node
ReadWritePaths=/etc/node -/etc/amnezia -/proc/sys -/run
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SYS_MODULE CAP_DAC_OVERRIDE CAP_CHOWN CAP_FOWNER
{_SANDBOX}"""
    return _unit("PharosVPN node agent", service)


def ingress_unit(client_port: int = 8443, tunnel_port: int = 8444) -> str:
    """The relay that devices and the controller's tunnel meet at."""
    arguments = f"--client-addr :{client_port} --tunnel-addr :{tunnel_port}"
    return _relay_unit("PharosVPN relay", f"run {arguments} --config-dir /etc/relay")


def egress_unit(port: int) -> str:
    """A hop of the control path."""
    return _relay_unit("PharosVPN egress relay", f"egress --tunnel-addr :{port} --config-dir /etc/relay", _MUST_HAVE_POLICY)


def onion_unit(port: int) -> str:
    """An onion hop."""
    return _relay_unit("PharosVPN onion relay", f"onion --listen :{port} --config-dir /etc/relay", _MUST_HAVE_POLICY)


_MUST_HAVE_POLICY = f"Environment={REQUIRED[0]}={REQUIRED[1]}\n"
"""Onboarding puts a policy there first. An existing relay's program looks at no such variable."""


def _relay_unit(description: str, arguments: str, environment: str = "") -> str:
    """A relay of either kind reads its keys, writes its policy (``coxswain.relay.policy``), and binds its port."""
    service = f"""\
User={RELAY.account}
Group={RELAY.account}
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
{environment}ExecStart=/usr/local/bin/relay {arguments}
TimeoutStopSec=20
CacheDirectory={RELAY.account}
CacheDirectoryMode=0700
ReadWritePaths=/etc/relay
PrivateDevices=yes
ProtectKernelTunables=yes
{_SANDBOX}{_NO_ROOT}"""
    return _unit(description, service)


SYSCTL = """net.ipv4.ip_forward=1
net.ipv6.conf.all.forwarding=1
net.ipv4.conf.all.rp_filter=0
net.ipv4.conf.default.rp_filter=0
"""

PREPARE = """set -e
export DEBIAN_FRONTEND=noninteractive
if ! command -v apt-get >/dev/null; then
    echo "there is no apt-get here: install amneziawg and amneziawg-tools by hand, and retry" >&2; exit 1
fi
wait="-o DPkg::Lock::Timeout=120"
apt-get $wait -q update
apt-get $wait -q install -y software-properties-common curl ca-certificates
add-apt-repository -y ppa:amnezia/ppa
apt-get $wait -q update
apt-get $wait -q install -y "linux-headers-$(uname -r)" amneziawg amneziawg-tools
"""
"""AmneziaWG from its PPA, on Ubuntu (node-contract.md 3.8). Each command may be repeated."""
