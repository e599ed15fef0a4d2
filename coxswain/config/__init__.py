"""Configuration: one YAML file, overridden by the environment, checked as a whole.

Precedence, low to high: default, preset of the posture, file, environment (``COX_``, and ``__`` for dots). Presets apply at
load, so that a trimmed file loses nothing. Unknown keys are errors. All problems are reported at once.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coxswain.config import document
from coxswain.config.keys import KEYS, POSTURES, Key
from coxswain.errors import InvalidInput, LoosePermissions

__all__ = ["KEYS", "Config", "ConfigProblems", "Key", "check", "load", "render"]

_BY_NAME = {key.name: key for key in KEYS}
_SECTIONS = {".".join(name.split(".")[:depth]) for name in _BY_NAME for depth in range(1, name.count(".") + 1)}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_FOREIGN_ENV = frozenset({"COX_CONFIG", "COX_CA_PASSPHRASE", "COX_CA_PASSPHRASE_FILE"})
"""Variables that begin with COX_ and are no configuration keys."""

_MAX_SOCKET_BYTES = 107
"""unix(7): sun_path holds 108 bytes with the final zero."""

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list of texts"}


class ConfigProblems(InvalidInput):
    """Everything that is wrong with a configuration, one line each."""

    def __init__(self, where: str, problems: list[str]) -> None:
        super().__init__(f"{where}: " + "; ".join(problems), remedy="See docs/configuration.md, or: cox config check")
        self.problems = problems


@dataclass(frozen=True)
class Config:
    """A sound configuration. ``values`` holds every key; paths in it are absolute, empty ones empty."""

    path: Path
    values: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def state_dir(self) -> Path:
        return Path(self["state_dir"])

    @property
    def socket(self) -> Path:
        return Path(self["control.socket"]) if self["control.socket"] else self.state_dir / "control.sock"

    @property
    def key_file(self) -> Path:
        return Path(self["ca.key_file"]) if self["ca.key_file"] else self.state_dir / "ca.key"

    @property
    def database(self) -> str | Path:
        """A DSN (it may hold a password: not to be shown), or the path of the SQLite file."""
        return self["database.dsn"] or self.state_dir / "app.db"

    def shown(self) -> dict[str, Any]:
        """Every key with its value, secrets masked."""
        return {key.name: "********" if key.secret and self[key.name] else self[key.name] for key in KEYS}


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Reads and checks a configuration.

    Raises:
        InvalidInput: there is no such file, or it cannot be read.
        LoosePermissions: it holds a secret, and others may read it.
        ConfigProblems: all that is wrong with it.
    """
    raw = document.read(path)
    config, in_file = _check(raw, path, environ)
    mode = stat.S_IMODE(path.stat().st_mode)
    secrets = [key.name for key in KEYS if key.secret and in_file.get(key.name)]
    if secrets and mode & 0o077:
        raise LoosePermissions(
            f"{path} holds a secret ({secrets[0]}) and can be used by others (mode {mode:04o})", remedy=f"chmod 600 {path}"
        )
    return config


def check(raw: bytes, path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """What ``load`` makes of a file with these bytes at this path. Raises ``InvalidInput``, ``ConfigProblems``."""
    return _check(raw, path, environ)[0]


def _check(raw: bytes, path: Path, environ: Mapping[str, str]) -> tuple[Config, dict[str, Any]]:
    """The configuration, and what of it stands in the file."""
    problems: list[str] = []
    given: dict[str, tuple[Any, str]] = {}
    for name, found in document.parse(raw, str(path), problems).items():
        origin = f"line {found.line}"
        if name in _BY_NAME:
            given[name] = (found.value, origin)
        elif name not in _SECTIONS or not found.section:
            problems.append(_unknown(name, origin))
    in_file = {name: value for name, (value, _) in given.items()}
    for variable, text in sorted(environ.items()):
        if not variable.startswith("COX_") or variable in _FOREIGN_ENV:
            continue
        name = variable[4:].lower().replace("__", ".")
        if name in _BY_NAME:
            given[name] = (_from_text(_BY_NAME[name], text), f"environment {variable}")
        else:
            problems.append(_unknown(name, f"environment {variable}"))
    posture = given.get("posture", ("", ""))[0]
    known = isinstance(posture, str) and posture in POSTURES
    values: dict[str, Any] = {}
    refused: set[str] = set()
    for key in KEYS:
        value, origin = given.get(key.name, (key.preset(posture) if known else key.default, "not set"))
        problem = _problem(key, value, origin)
        if problem:
            problems.append(problem)
            refused.add(key.name)
        elif key.kind is float:
            value = float(value)
        elif key.path and value:
            value = str((path.parent / value).absolute())
        values[key.name] = value
    problems += _together(values, refused)
    if problems:
        raise ConfigProblems(str(path), problems)
    return Config(path.absolute(), values), in_file


def render(posture: str, overrides: Mapping[str, Any]) -> str:
    """The text of a fresh configuration file: the preset's values and ``overrides``, with a line of help each."""
    lines = [
        "# coxswain configuration. Every key is explained in docs/configuration.md; keys that are left out take the",
        f"# preset of the posture ({posture}). Check a change with: cox config check",
    ]
    open_sections: list[str] = []
    for key in sorted(KEYS, key=lambda k: ("." in k.name, k.name)):
        value = overrides.get(key.name, posture if key.name == "posture" else key.preset(posture))
        if value == key.default and key.name not in overrides and key.personal is None and key.enterprise is None:
            continue
        *sections, leaf = key.name.split(".")
        for depth, section in enumerate(sections):
            if open_sections[: depth + 1] != sections[: depth + 1]:
                lines.append(f"{'  ' * depth}{section}:")
        open_sections = sections
        indent = "  " * len(sections)
        lines.append(f"{indent}# {key.help}")
        lines.append(f"{indent}{leaf}: {_yaml(value)}")
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    import json  # noqa: PLC0415 - only init renders

    # JSON is YAML, but for characters outside the basic plane, which JSON would write as two escapes.
    return json.dumps(value, ensure_ascii=False)


def _unknown(name: str, origin: str) -> str:
    name = name[:100]
    if name in _SECTIONS:
        return f"{name} ({origin}): is a section; it holds keys, not a value"
    near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.5)
    if not near:  # the right word in the wrong section
        near = [key for key in _BY_NAME if key.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{name!r} ({origin}): unknown key{hint}" if not name.isprintable() else f"{name} ({origin}): unknown key{hint}"


def _from_text(key: Key, text: str) -> Any:
    """A value from the environment; one that does not fit is left as text, for the check to complain about."""
    if key.kind is bool:
        low = text.strip().lower()
        return True if low in _TRUE else False if low in _FALSE else text
    if key.kind is list:
        return [part.strip() for part in text.split(",") if part.strip()]
    if key.kind in (int, float):
        try:
            return key.kind(text)
        except ValueError:
            return text
    return text


def _problem(key: Key, value: Any, origin: str) -> str:
    """What is wrong with one value, by itself; empty: nothing."""
    what = f"{key.name} ({origin})"
    takes = f"; it takes {key.accepts}" if key.accepts else ""
    if value is None:
        return f"{what}: has no value{takes}; leave the key out for its default"
    shown = "********" if key.secret else _short(value)
    kinds: tuple[type[Any], ...] = (int, float) if key.kind is float else (key.kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and key.kind is not bool):
        quotes = "; put it in quotes" if key.kind is str and not isinstance(value, (list, dict)) else ""
        return f"{what}: {shown} is not {_WORDS[key.kind]}{quotes}{takes}"
    if key.kind is list and not all(isinstance(item, str) for item in value):
        return f"{what}: {shown} is not {_WORDS[list]}{takes}"
    texts = value if key.kind is list else [value]
    if any(isinstance(text, str) and not _storable(text) for text in texts):
        return f"{what}: {shown} holds control characters"
    if not key.check(value):
        return f"{what}: {shown} is not accepted{takes}"
    return ""


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _storable(text: str) -> bool:
    return not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text)


def _together(values: Mapping[str, Any], refused: set[str]) -> list[str]:
    """What only shows when keys are looked at together; keys that are wrong by themselves are left out."""
    problems = []

    def sound(*names: str) -> bool:
        return refused.isdisjoint(names)

    if sound("backend", "database.dsn"):
        backend, dsn = values["backend"].lower(), values["database.dsn"]
        if backend in ("postgres", "postgresql", "pg") and not dsn:
            problems.append("backend is postgres, but database.dsn is empty; give the DSN, or use sqlite")
        if backend == "sqlite" and dsn:
            problems.append("backend is sqlite, but database.dsn names a Postgres server; leave one of them out")
    if sound("relay.remote", "relay.embedded") and values["relay.remote"] and not values["relay.embedded"]:
        problems.append("relay.remote needs relay.embedded")
    low, high = "fleet.endpoint_port_min", "fleet.endpoint_port_max"
    if sound(low, high) and values[low] > values[high]:
        problems.append(f"{low} ({values[low]}) is greater than {high} ({values[high]})")
    if sound("siem.tls_cert", "siem.tls_key") and bool(values["siem.tls_cert"]) != bool(values["siem.tls_key"]):
        missing = "siem.tls_key" if values["siem.tls_cert"] else "siem.tls_cert"
        problems.append(f"siem.tls_cert and siem.tls_key go together; {missing} is missing")
    if sound("control.socket", "state_dir"):
        socket = values["control.socket"] or f"{values['state_dir']}/control.sock"
        length = len(os.fsencode(socket))
        if length > _MAX_SOCKET_BYTES:
            problems.append(
                f"control.socket: {_short(socket)} is {length} bytes long; a socket's path has at most {_MAX_SOCKET_BYTES}: "
                "set control.socket to a shorter one"
            )
    return problems
