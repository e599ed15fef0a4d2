"""The agent's configuration: defaults, then ``node.yaml``, then ``NODE_*`` (node-contract.md 3.3).

These keys are ours alone: ``control.allowed_clients`` (common names of client certificates that may call, a list or
comma-separated; empty: all that TLS lets in), ``control.stop_grace_s`` (seconds that running calls get at a stop),
``data_plane.firewall`` (``auto``, ``nftables`` or ``iptables``), ``data_plane.conf_directory``,
``data_plane.poll_interval_s`` (seconds between two looks for events) and ``data_plane.heal_interval_s`` (seconds between two
looks whether interfaces and rules are still there; 0: none).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from coxswain.agent.wireguard.settings import FirewallChoice, WireguardSettings
from coxswain.errors import InvalidInput

__all__ = ["LOG_LEVELS", "AgentConfig", "load_config"]

LOG_LEVELS = ("debug", "info", "warn", "error")
_PREFIX = "NODE_"
_SECTIONS = ("control", "log", "data_plane")


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Checked settings. ``listen_addr`` is ``host:port``, with an empty host for all addresses."""

    listen_addr: str = ":8444"
    log_level: str = "info"
    allowed_clients: frozenset[str] = frozenset()
    stop_grace_s: float = 10.0
    wireguard: WireguardSettings = WireguardSettings()
    poll_interval_s: float = 5.0
    heal_interval_s: float = 15.0


def load_config(directory: Path, environment: Mapping[str, str]) -> AgentConfig:
    """Reads the configuration. Unknown keys are ignored, as the existing agent does.

    Raises:
        InvalidInput: the file is no YAML mapping, a section is no section, or a value is no good.
    """
    settings: dict[str, Any] = {}
    path = directory / "node.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        found = {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"node.yaml: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInput("node.yaml: is no mapping of sections")
    for section in _SECTIONS:
        values = found.get(section, {})
        if not isinstance(values, dict):
            raise InvalidInput(f"node.yaml: {section} is a section, not a value")
        settings |= {f"{section}.{str(name).lower()}": value for name, value in values.items()}
    for variable, text in environment.items():
        if variable.startswith(_PREFIX):
            name = variable.removeprefix(_PREFIX).lower().replace("__", ".")
            if name in _SECTIONS:
                raise InvalidInput(f"{variable}: {name} is a section; {variable}__… would name one of its values")
            settings[name] = text
    default = AgentConfig()
    return AgentConfig(
        listen_addr=_listen_addr(settings.get("control.listen_addr", default.listen_addr)),
        log_level=_log_level(settings.get("log.level", default.log_level)),
        allowed_clients=_names(settings.get("control.allowed_clients", ())),
        stop_grace_s=_seconds("control.stop_grace_s", settings.get("control.stop_grace_s", default.stop_grace_s)),
        wireguard=_wireguard(settings),
        poll_interval_s=_seconds(
            "data_plane.poll_interval_s", settings.get("data_plane.poll_interval_s", default.poll_interval_s), least=0.05
        ),
        heal_interval_s=_seconds(
            "data_plane.heal_interval_s", settings.get("data_plane.heal_interval_s", default.heal_interval_s)
        ),
    )


def _wireguard(settings: Mapping[str, Any]) -> WireguardSettings:
    default = WireguardSettings()
    choice = settings.get("data_plane.firewall", default.firewall)
    if choice not in tuple(FirewallChoice):
        raise InvalidInput(f"data_plane.firewall: {choice!r} is none of {', '.join(FirewallChoice)}")
    directory = settings.get("data_plane.conf_directory", str(default.conf_directory))
    if not isinstance(directory, str) or not directory.startswith("/"):
        raise InvalidInput(f"data_plane.conf_directory: {directory!r} is not an absolute path")
    return WireguardSettings(Path(directory), FirewallChoice(choice))


def _listen_addr(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    host, colon, port = text.rpartition(":")
    bare_v6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not colon or bare_v6 or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise InvalidInput(f"control.listen_addr: {value!r} is not host:port, such as :8444 or 10.0.0.1:8444")
    return text


def _log_level(value: Any) -> str:
    if not isinstance(value, str) or value.lower() not in LOG_LEVELS:
        raise InvalidInput(f"log.level: {value!r} is none of {', '.join(LOG_LEVELS)}")
    return value.lower()


def _names(value: Any) -> frozenset[str]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f"control.allowed_clients: {value!r} is not a list of common names")
    return frozenset(name.strip() for name in names if name.strip())


def _seconds(name: str, value: Any, *, least: float = 0) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not least <= seconds <= 3600:
        raise InvalidInput(f"{name}: {value!r} is not a number of seconds, {least:g} to 3600")
    return seconds
