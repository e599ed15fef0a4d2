"""Configuration: one YAML file, overridden by the environment, checked as a whole.

Precedence, low to high: default, preset of the posture, file, environment (``COX_``, and ``__`` for dots). Presets apply at
load, so that a trimmed file loses nothing. Unknown keys are errors in the file, which is ours alone, and warnings in the
environment, which is not. All problems are reported at once.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coxswain.config import document
from coxswain.config.crosscheck import together
from coxswain.config.keys import KEYS, POSTURES, Key, is_loopback
from coxswain.errors import CoxswainError, InvalidInput, LoosePermissions

if TYPE_CHECKING:
    from coxswain.audit.settings import AuditPaths

__all__ = ["KEYS", "Config", "ConfigProblems", "Key", "Origin", "check", "load", "render"]

_BY_NAME = {key.name: key for key in KEYS}
_SECTIONS = {".".join(name.split(".")[:depth]) for name in _BY_NAME for depth in range(1, name.count(".") + 1)}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_FOREIGN_ENV = frozenset({
    "COX_CONFIG", "COX_CA_PASSPHRASE", "COX_CA_PASSPHRASE_FILE", "COX_URL", "COX_TOKEN", "COX_TOKEN_FILE", "COX_CA_CERT",
    "COX_ALLOW_PLAIN_HTTP",
    "COX_BACKUP_PASSPHRASE", "COX_BACKUP_PASSPHRASE_FILE",
})  # fmt: skip
"""Variables that begin with COX_ and are no configuration keys."""

_FILES_TO_READ = ("node.binary_path", "relay.binary_path", "siem.tls_cert", "siem.tls_key", "siem.client_ca", "geoip_db")

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list of texts"}


class ConfigProblems(InvalidInput):
    """Everything that is wrong with a configuration, one line each."""

    def __init__(self, where: str, problems: list[str]) -> None:
        super().__init__(f"{where}: " + "; ".join(problems), remedy="See docs/configuration.md, or: cox config check")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from. ``kind`` is ``default``, ``preset``, ``file`` or ``environment``; ``where`` says more."""

    kind: str
    where: str


@dataclass(frozen=True)
class Config:
    """A sound configuration. ``values`` holds every key; paths in it are absolute, empty ones empty. ``unheeded``: a
    sentence for each variable that looks like a key and is none.
    """

    path: Path
    values: Mapping[str, Any] = field(repr=False)
    origins: Mapping[str, Origin] = field(repr=False, default_factory=dict)
    unheeded: tuple[str, ...] = ()

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
    def audit_paths(self) -> AuditPaths:
        """The files of the audit log that are not in the database."""
        from coxswain.audit.settings import AuditPaths  # noqa: PLC0415 - commands do not pay for it

        usual = AuditPaths.in_state(self.state_dir)
        key, checkpoints = self["audit.key_file"], self["audit.checkpoint_file"]
        return AuditPaths(
            Path(key) if key else usual.key, Path(checkpoints) if checkpoints else usual.checkpoints, usual.revocations
        )

    @property
    def database(self) -> str | Path:
        """A DSN (it may hold a password: not to be shown), or the path of the SQLite file."""
        return self["database.dsn"] or self.state_dir / "app.db"

    def shown(self) -> dict[str, Any]:
        """Every key with its value, secrets masked."""
        return {key.name: self.shown_value(key.name) for key in KEYS}

    def shown_value(self, name: str) -> Any:
        """One value, masked if it is a secret."""
        return "********" if _BY_NAME[name].secret and self[name] else self[name]

    def origin(self, name: str) -> Origin:
        return self.origins.get(name, Origin("default", "default"))

    def warnings(self) -> list[str]:
        """What is accepted, but should be known: keys without effect, files that are not there, and what could be safer."""
        found = [f"{sentence}; it goes unheeded" for sentence in self.unheeded]
        found += [
            f"{key.name} ({self.origin(key.name).where}): has no effect: {key.idle}"
            for key in KEYS
            if key.idle and self.origin(key.name).kind in ("file", "environment")
        ]
        found += [
            f"{name} ({self.origin(name).where}): there is no {self[name]}"
            for name in _FILES_TO_READ
            if self[name] and not os.path.exists(self[name])  # noqa: PTH110 - a path that is none is not there either
        ]
        if self["admin.password"]:
            found.append("admin.password: stands in clear text; put its hash into admin.password_hash instead")
        if self["database.dsn"] and self.origin("database.dsn").kind == "file" and _holds_password(self["database.dsn"]):
            found.append(
                "database.dsn: holds a password in clear text; a service file (~/.pgpass) or COX_DATABASE__DSN keeps it out"
            )
        if not is_loopback(self["ui.listen"]) and self["ui.allow_remote"]:
            found.append(f"ui.listen: {self['ui.listen']} can be reached from outside without encryption (ui.allow_remote)")
        return found


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
    unheeded = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith("COX_") or variable in _FOREIGN_ENV:
            continue
        name = variable[4:].lower().replace("__", ".")
        if name in _BY_NAME:
            given[name] = (_from_text(_BY_NAME[name], text), f"environment {variable}")
        else:
            unheeded.append(
                _unknown(name, f"environment {variable[:100] if variable.isprintable() else ascii(variable[:100])}")
            )
    posture = given.get("posture", ("", ""))[0]
    known = isinstance(posture, str) and posture in POSTURES
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    refused: set[str] = set()
    for key in KEYS:
        value, origin = given.get(key.name, (key.preset(posture) if known else key.default, "not set"))
        origins[key.name] = _origin(key, origin, posture)
        if type(value) is key.kind:
            value = key.reads(value)
        elif value is None and key.kind is list:
            value = []
        problem = _problem(key, value, origin)
        if problem:
            problems.append(problem)
            refused.add(key.name)
        elif key.kind is float:
            value = float(value)
        elif key.path and value:
            value = str((path.parent / value).absolute())
        values[key.name] = value
    problems += together(values, refused)
    if problems:
        raise ConfigProblems(str(path), problems)
    return Config(path.absolute(), values, origins, tuple(unheeded)), in_file


def _origin(key: Key, origin: str, posture: Any) -> Origin:
    if origin != "not set":
        kind, _, _rest = origin.partition(" ")
        return Origin("environment" if kind == "environment" else "file", origin)
    has_preset = {"personal": key.personal, "enterprise": key.enterprise}.get(str(posture)) is not None
    return Origin("preset", f"preset {posture}") if has_preset else Origin("default", "default")


def _holds_password(dsn: str) -> bool:
    from urllib.parse import urlsplit  # noqa: PLC0415 - only for warnings

    return bool(urlsplit(dsn.strip()).password) or "password=" in dsn


def render(posture: str, overrides: Mapping[str, Any]) -> str:
    """The text of a fresh configuration file: the preset's values and ``overrides``, with a line of help each."""
    lines = [
        "# coxswain configuration. Every key is explained in docs/configuration.md; keys that are left out take the",
        f"# preset of the posture ({posture}). Check a change with: cox config check",
    ]
    open_sections: list[str] = []
    for key in sorted(KEYS, key=lambda k: ("." in k.name, k.name)):
        if key.idle and key.name not in overrides:
            continue  # a fresh file starts without a warning
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
        return _list_from_text(text)
    if key.kind in (int, float):
        try:
            return key.kind(text)
        except ValueError:
            return text
    return text


def _list_from_text(text: str) -> Any:
    """``a, b`` or YAML's ``[a, b]``, for items that hold commas themselves; what is no such list is left as text."""
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = document.parse(b"list: " + text.strip().encode(), "environment", [])
    except (CoxswainError, UnicodeEncodeError):
        return text
    return found["list"].value if set(found) == {"list"} else text


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
