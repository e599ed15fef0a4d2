"""Every configuration key: its type, default, presets, check and meaning (management-plane.md 1.2, and ours).

``docs/configuration.md`` is made from this table by ``tools/config-docs``.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from coxswain.alerts.model import KINDS
from coxswain.alerts.settings import ALLOWED, is_allowance
from coxswain.inventory import is_source
from coxswain.provisioning.offer import SUBNETS_V6, is_subnet_v6

__all__ = ["KEYS", "Key", "Posture", "is_loopback"]

Posture = str
"""``personal`` or ``enterprise``."""

POSTURES = ("personal", "enterprise")


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: dotted.
        kind: ``str``, ``int``, ``float``, ``bool`` or ``list`` (of strings).
        default: when neither preset, file nor environment say otherwise.
        help: one line for the operator.
        accepts: what ``check`` lets through, in words.
        check: returns True for good values of the right type.
        personal: preset, if it differs from the default.
        enterprise: preset, if it differs from the default.
        secret: never shown.
        path: relative ones start at the file's directory.
        live: a running daemon takes a new value over (SIGHUP, ``cox config reload``); others wait for its next start.
        idle: why nothing acts on it; empty: something does. Existing files hold it (management-plane.md 1.2), so it is
            accepted, and whoever sets it is told (accounts-profiles.md 10.1, 9).
        reads: from how files of the existing controller may say it to how it is said here (management-plane.md 1.2: 0 for
            "not set", less than nothing for "never"); given values of the right type, before they are checked.
    """

    name: str
    kind: type[Any]
    default: Any
    help: str
    accepts: str = ""
    check: Callable[[Any], bool] = field(default=lambda _value: True)
    personal: Any = None
    enterprise: Any = None
    secret: bool = False
    path: bool = False
    live: bool = False
    idle: str = ""
    reads: Callable[[Any], Any] = field(default=lambda value: value)

    def preset(self, posture: Posture) -> Any:
        """The value under a posture when nobody says otherwise."""
        value = self.personal if posture == "personal" else self.enterprise
        return self.default if value is None else value


def _one_of(*choices: str) -> dict[str, Any]:
    return {"accepts": " or ".join(c or '""' for c in choices), "check": lambda v: v in choices}


def _between(low: int, high: int) -> dict[str, Any]:
    return {"accepts": f"{low} to {high}", "check": lambda v: low <= v <= high}


def _is_host(host: str) -> bool:
    """A name, an IPv4 address, or an IPv6 address in brackets."""
    try:
        if host.startswith("[") and host.endswith("]"):
            return ipaddress.IPv6Address(host[1:-1]) is not None
        if re.fullmatch(r"[0-9.]+", host):
            return ipaddress.IPv4Address(host) is not None
    except ValueError:
        return False
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", label) for label in labels)


def _listen(value: str) -> bool:
    host, _, port = value.rpartition(":")
    return _is_port(port) and (host == "" or _is_host(host))


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 1 <= int(text) <= 65535


def _address(value: str) -> bool:
    try:
        return ipaddress.ip_address(value) is not None
    except ValueError:
        return False


_MINISIGN = "a minisign public key (56 characters), or empty"


def _release_key(value: str) -> bool:
    try:
        raw = base64.b64decode(value, validate=True)
    except ValueError:
        return False
    return value == "" or (len(raw) == 42 and raw[:2] == b"Ed")


def _cidr(value: str) -> bool:
    try:
        return ipaddress.IPv4Network(value).num_addresses >= 8
    except ValueError:
        return False


def _url(value: str, schemes: tuple[str, ...] = ("https",)) -> bool:
    if value == "":
        return True
    try:
        parts = urlsplit(value)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", value)
    except ValueError:  # a port out of range, brackets that do not close
        return False


def _webhook(value: str) -> bool:
    if _url(value):
        return True
    try:
        parts = urlsplit(value)
        local = is_loopback(f"{_bracketed(parts.hostname or '')}:0")
        return parts.scheme == "http" and local and parts.port != 0 and not re.search(r"\s", value)
    except ValueError:
        return False


def _dsn(value: str) -> bool:
    if value == "":
        return True
    try:
        # No host is fine: libpq then takes its own default, or what the query says.
        return urlsplit(value.strip()).scheme.lower() in ("postgres", "postgresql") and "://" in value
    except ValueError:
        return False


def _endpoint(value: str) -> bool:
    host, _, port = value.rpartition(":")
    return value == "" or (_is_port(port) and _is_host(host))


def _origin(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return (
            parts.scheme in ("http", "https")
            and _is_host(_bracketed(parts.hostname or ""))
            and parts.port != 0
            and (parts.path in ("", "/") and not parts.query and not parts.fragment and parts.username is None)
        )
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach an address of the form ``host:port``. No host means every address."""
    host = listen.rpartition(":")[0].strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _password_hash(value: str) -> bool:
    return (
        value == ""
        or re.fullmatch(r"\$argon2id\$v=19\$[a-z0-9=,]{1,60}\$[A-Za-z0-9+/]{8,100}\$[A-Za-z0-9+/]{16,200}", value)
        is not None
    )


def _above(least: int, default: int) -> Callable[[int], int]:
    """``default`` for numbers that are not above ``least``."""
    return lambda value: value if value > least else default


_SUBNET = "10.86.0.0/16"


def _network(text: str) -> str:
    """Empty is the default; an address in a network stands for the network."""
    try:
        return str(ipaddress.IPv4Network(text or _SUBNET, strict=False))
    except ValueError:
        return text


def _level(text: str) -> str:
    level = text.lower()
    return "warn" if level == "warning" else level


_LISTEN: dict[str, Any] = {"accepts": "host:port or :port", "check": _listen}
_LISTEN_OR_OFF: dict[str, Any] = {"accepts": "host:port, or empty for off", "check": lambda v: v == "" or _listen(v)}
_URL: dict[str, Any] = {
    "accepts": "an https or http URL, or empty",
    "check": lambda v: _url(v, ("https", "http")),  # what comes from there counts by its digest
}
_DIGEST: dict[str, Any] = {
    "accepts": "64 hex digits, or empty",
    "check": lambda v: v == "" or re.fullmatch(r"[0-9a-fA-F]{64}", v) is not None,
}
_PORT = _between(1, 65535)
_SECONDS = _between(1, 86_400)
_DAYS: dict[str, Any] = {
    "accepts": "days, at most 36500; 0 or less: keep for ever",
    "check": lambda v: v <= 36_500,
    "reads": lambda v: max(v, 0),
}

_PORTS = "each node is given a range of its own, where its agent maps it: cox nodes endpoints NODE --ports 20000-29999"
_RESERVE = "no node is kept from whoever profiles give it to; exits stand in reserve as fallbacks of a path (cox paths edit)"

KEYS: tuple[Key, ...] = (
    Key("posture", str, "", "which presets apply to what is not set", **_one_of(*POSTURES)),
    Key("state_dir", str, "./state", "where keys, the database and the control socket are", "a path", lambda v: v != "",
        path=True),
    Key(
        "backend", str, "", "database; must fit database.dsn if given",
        "sqlite, postgres (or pg, postgresql), or empty",
        lambda v: v.lower() in ("", "sqlite", "postgres", "postgresql", "pg"),
    ),
    Key("database.dsn", str, "", "Postgres server; empty: SQLite in the state directory", "a postgres:// URL, or empty",
        _dsn, secret=True),
    Key("ca.key_source", str, "file", "what the CA's keys are sealed with", **_one_of("file", "credential", "passphrase")),
    Key("ca.key_file", str, "", "for key_source file; empty: ca.key in the state directory", "a path, or empty", path=True),
    Key("control.socket", str, "", "the control socket; empty: control.sock in the state directory",
        "a path of at most 107 bytes, or empty", path=True),
    Key("log.level", str, "info", "how much the log tells", live=True, reads=_level,
        **_one_of("debug", "info", "warn", "error")),
    Key("fleet.reconcile_interval", int, 45, "seconds between two looks at a node", live=True, reads=_above(0, 45),
        **_SECONDS),
    Key("fleet.vpn_subnet", str, _SUBNET, "tunnel addresses of devices", "an IPv4 network of at least 8 addresses", _cidr,
        reads=_network),
    Key("fleet.vpn_subnet_v6", str, "", "their IPv6 tunnel addresses, on nodes that serve it; empty: none",
        f"a {SUBNETS_V6} (RFC 4193), or empty", lambda v: v == "" or is_subnet_v6(v)),
    Key("fleet.rotation.enabled", bool, False, "have clients change among the addresses of a node", enterprise=True),
    Key("fleet.rotation.interval_seconds", int, 600, "seconds between two rotations", reads=_above(0, 600),
        **_SECONDS),
    Key("fleet.rotation.jitter_seconds", int, 120, "and how much that may vary", **_between(0, 86_400)),
    Key("fleet.failover.after_seconds", int, 180, "for how long the exit of a path must be gone until a fallback is used",
        live=True, **_between(5, 86_400)),
    Key("fleet.failover.back_after_seconds", int, 0,
        "for how long it must be well until it is used again; 0: an operator says when", live=True, **_between(0, 604_800)),
    Key("fleet.regions", list, [], "the regions that the dashboard offers for nodes; empty: all that it knows", live=True),
    Key("fleet.endpoint_port_min", int, 2000, "lowest UDP port of node endpoints", **_between(0, 65535), idle=_PORTS),
    Key("fleet.endpoint_port_max", int, 60000, "highest UDP port of node endpoints", **_between(0, 65535), idle=_PORTS),
    Key("fleet.idle_nodes", bool, False, "keep idle nodes in reserve", enterprise=True, idle=_RESERVE),
    Key("protocols.amneziawg", bool, True, "serve AmneziaWG"),
    Key("protocols.xray", bool, False, "serve XRay/REALITY", enterprise=True),
    Key("reality.decoy_site", str, "www.microsoft.com", "whom REALITY pretends to be",
        "a host name, with :port if it is not 443", lambda v: _is_host(v) or (v != "" and _endpoint(v))),
    Key("node.ssh_user", str, "root", "user for onboarding over SSH", "a user name", lambda v: v != "", live=True,
        reads=lambda v: v or "root"),
    Key("node.ssh_port", int, 22, "port for onboarding over SSH", **_PORT, live=True, reads=lambda v: v or 22),
    Key("node.node_binary_url", str, "", "where hosts fetch the node agent", **_URL, live=True),
    Key("node.node_binary_sha256", str, "", "SHA-256 of what is behind that URL; nothing else is installed", **_DIGEST,
        live=True),
    Key("node.binary_path", str, "", "node agent to upload; wins over the URL", "a path, or empty", path=True, live=True),
    Key("node.release_key", str, "", "minisign key; only node agents signed with it are installed", _MINISIGN, _release_key,
        live=True),
    Key("node.control_from", list, [], "from where the control ports of nodes are reached; empty: from everywhere",
        "a list of addresses, networks or auto", lambda v: all(is_source(e) for e in v), live=True),
    Key("ui.listen", str, "127.0.0.1:8443", "address of the REST API and the dashboard", **_LISTEN),
    Key("ui.allow_remote", bool, False, "let ui.listen be no loopback address although what it serves is not encrypted"),
    Key("ui.behind_tls_proxy", bool, False, "a TLS proxy stands in front: believe its X-Forwarded-Proto"),
    Key("ui.allowed_hosts", list, [], "names under which the API is reached, beside its own address (Host header)",
        "a list of host or host:port", lambda v: all(_is_host(e) or (_endpoint(e) and e != "") for e in v)),
    Key("ui.allowed_origins", list, [], "origins of pages, beside its own, that may change things (Origin header)",
        "a list of http(s)://host[:port]", lambda v: all(_origin(e) for e in v)),
    Key("admin.password", str, "", "password of the built-in admin; better give its hash", secret=True),
    Key("admin.password_hash", str, "", "Argon2id hash of the built-in admin's password", "$argon2id$v=19$..., or empty",
        _password_hash, secret=True),
    Key("admin.password_min_length", int, 8, "characters that a new password has at least; above 8, none is easy to guess",
        live=True, **_between(8, 64)),
    Key("accounts.sync", bool, True, "serve accounts and profile sync to devices, through relays"),
    Key("accounts.invite_ttl_seconds", int, 3600, "seconds for which a join link is good, if nothing else is asked for",
        **_between(60, 604_800), live=True),
    Key("accounts.device_cert_days", int, 365, "days for which the certificates of devices are good",
        **_between(1, 1_825), live=True),
    Key("accounts.legacy_login", bool, False,
        "let devices without a key of their own use the password of their account; relays see it"),
    Key("relay.embedded", bool, True, "let the daemon be a relay itself, if relay.client_listen says where"),
    Key("relay.remote", bool, False, "dial relay.remote_endpoints, beside the relays of the inventory", enterprise=True),
    Key("relay.remote_endpoints", list, [], "addresses of remote relays", "a list of host:port",
        lambda v: all(_endpoint(e) and e for e in v)),
    Key("relay.public_endpoint", str, "", "where clients reach the relay", "host:port, or empty", _endpoint),
    Key("relay.client_listen", str, "", "address of the embedded relay", **_LISTEN_OR_OFF),
    Key("relay.binary_url", str, "", "where hosts fetch the relay", **_URL, live=True),
    Key("relay.binary_sha256", str, "", "SHA-256 of what is behind that URL; nothing else is installed", **_DIGEST,
        live=True),
    Key("relay.binary_path", str, "", "relay to upload; wins over the URL", "a path, or empty", path=True, live=True),
    Key("relay.release_key", str, "", "minisign key; only relays signed with it are installed", _MINISIGN, _release_key,
        live=True),
    Key("analytics.disabled", bool, False, "switch the alert rules off", live=True),
    Key("analytics.interval_seconds", int, 60, "seconds between two runs of the rules", reads=_above(0, 60), live=True,
        **_SECONDS),
    Key("analytics.window_hours", int, 24, "how far back the rules look, in hours", reads=_above(0, 24), live=True,
        **_between(1, 8_760)),
    Key("analytics.rules_off", list, [], "rules that are not run; see alerts.md",
        "a list of rules", lambda v: all(e in KINDS for e in v), live=True),
    Key("analytics.allow", list, [], "what the rules leave alone; see alerts.md",
        f"a list of {ALLOWED}", lambda v: all(is_allowance(e) for e in v), live=True),
    Key("analytics.trusted_proxies", list, [], "addresses of proxies: failed logins from there are counted by account only",
        "a list of IP addresses", lambda v: all(_address(e) for e in v), live=True),
    Key("analytics.webhook_url", str, "", "where alerts are sent to; empty: nowhere",
        "an https URL (http to this machine), or empty", _webhook, secret=True, live=True),
    Key("analytics.webhook_secret", str, "", "what they are signed with", secret=True, live=True),
    Key("analytics.webhook_severity", str, "warning", "milder alerts are not sent", live=True,
        **_one_of("info", "warning", "critical")),
    Key("analytics.recovery_seconds", int, 3, "for how long a node must be well until its alert ends", live=True,
        **_between(0, 3_600)),
    Key("analytics.error_seconds", int, 10, "for how long a node may be in error before that is an alert", live=True,
        **_between(0, 3_600)),
    Key("analytics.degraded_minutes", int, 5, "after how long a node that cannot be mended is an alert", live=True,
        **_between(1, 1_440)),
    Key("analytics.leaked_window_minutes", int, 10, "leaked_profile: within which time addresses are compared", live=True,
        **_between(1, 1_440)),
    Key("analytics.leaked_networks", int, 2, "leaked_profile: from how many networks at once", live=True, **_between(2, 50)),
    Key("analytics.travel_kmh", int, 900, "impossible_travel: fastest speed that is believed", live=True,
        **_between(100, 100_000)),
    Key("analytics.travel_km", int, 100, "impossible_travel: shorter distances do not count", live=True,
        **_between(1, 20_000)),
    Key("analytics.history_connects", int, 10, "new_geo: connects of a device that must be known before", live=True,
        **_between(1, 10_000)),
    Key("analytics.auth_failures", int, 5, "auth_failure_spike: failed logins from one address, or to one account",
        live=True, **_between(2, 100_000)),
    Key("analytics.auth_failures_global", int, 50, "auth_failure_spike: failed logins altogether", live=True,
        **_between(2, 1_000_000)),
    Key("analytics.auth_window_minutes", int, 10, "auth_failure_spike: within which time", live=True, **_between(1, 1_440)),
    Key("analytics.dormant_days", int, 30, "dormant_then_active: days without a connect", live=True, **_between(1, 3_650)),
    Key("analytics.off_hours_connects", int, 20, "off_hours_access: connects that must be known before", live=True,
        **_between(1, 100_000)),
    Key("analytics.off_hours_days", int, 7, "off_hours_access: days that must be known before", live=True,
        **_between(1, 365)),
    Key("analytics.off_hours_percent", int, 2, "off_hours_access: share of connects up to which an hour is unusual",
        live=True, **_between(0, 50)),
    Key("analytics.volume_floor_mib", int, 1024, "data_volume_exfil: smaller uploads do not count (MiB)", live=True,
        **_between(1, 2**30)),
    Key("analytics.volume_factor", int, 10, "data_volume_exfil: how many times the usual upload", live=True,
        **_between(2, 100_000)),
    Key("analytics.volume_sessions", int, 20, "data_volume_exfil: sessions that must be known before", live=True,
        **_between(1, 100_000)),
    Key("analytics.expiry_days", int, 7, "certificate_expiring and token_expiring: days before the end", live=True,
        **_between(1, 365)),
    Key("analytics.disk_free_percent", int, 10, "storage_low: share of the disk that should be free", live=True,
        **_between(1, 90)),
    Key("analytics.dropped_events", int, 1, "events_dropped: from how many at one place", live=True,
        **_between(1, 1_000_000_000)),
    Key("analytics.dropped_window_minutes", int, 10, "events_dropped: within which time", live=True, **_between(1, 1_440)),
    Key("audit.checkpoint_interval_seconds", int, 300, "seconds between two signed checkpoints of the audit log",
        **_SECONDS, live=True),
    Key("audit.checkpoint_records", int, 1000, "and one is due after so many records in any case",
        **_between(1, 1_000_000), live=True),
    Key("audit.key_file", str, "", "the audit log's signing key; empty: audit.key in the state directory",
        "a path, or empty", path=True),
    Key("audit.checkpoint_file", str, "", "where checkpoints are appended; empty: audit-checkpoints in the state directory",
        "a path, or empty", path=True),
    Key("retention.audit_days", int, 0, "for how long audit payloads are kept", **_DAYS, personal=30, enterprise=365,
        live=True),
    Key("retention.metrics_days", int, 0, "for how long sessions, time series and resolved alerts are kept", **_DAYS,
        personal=7, enterprise=90, live=True),
    Key("siem.listen", str, "", "address of the SIEM stream; empty: there is none", **_LISTEN_OR_OFF),
    Key("siem.tls_cert", str, "", "its certificate, with intermediates; read again when it changes", "a path, or empty",
        path=True),
    Key("siem.tls_key", str, "", "the certificate's key, of mode 0600", "a path, or empty", path=True),
    Key("siem.client_ca", str, "", "consumers need a certificate of this CA, beside their token", "a path, or empty",
        path=True),
    Key("geoip_db", str, "", "a GeoIP city database (MMDB); empty: one in the state directory", "a path, or empty",
        path=True),
    Key("control_location.city", str, "", "where the controller stands on the map (0, 0: nowhere)"),
    Key("control_location.lat", float, 0.0, "its latitude", "-90 to 90", lambda v: -90 <= v <= 90),
    Key("control_location.lon", float, 0.0, "its longitude", "-180 to 180", lambda v: -180 <= v <= 180),
)  # fmt: skip
