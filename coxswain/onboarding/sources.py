"""Where the programs come from that are installed: a file of the controller, or a URL with the digest of what is behind
it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coxswain.errors import InvalidInput, NothingToInstall, Refused
from coxswain.onboarding.signature import signed_digest
from coxswain.ssh.host import digest_of

__all__ = ["Source", "Sources", "source_from"]

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Source:
    """Exactly one of both. ``sha256`` is lower hex; for a file it is what the operation saw when it began."""

    path: str = ""
    url: str = ""
    sha256: str = ""

    def as_params(self) -> dict[str, str]:
        """For the journal."""
        return {"path": self.path, "url": self.url, "sha256": self.sha256}


class Sources:
    """What the configuration says, read anew for each operation: it may change while the daemon runs.

    Args:
        value: of a configuration key, as text.
    """

    def __init__(self, value: Callable[[str], str]) -> None:
        self._value = value

    def node(self, given: Mapping[str, Any]) -> Source:
        """For node agents: what the request gives, else the configured one."""
        found = self._pick(given, "node.binary_path", "node.node_binary_url", "node.node_binary_sha256")
        return _signed(found, self._value("node.release_key"))

    def relay(self, given: Mapping[str, Any]) -> Source:
        found = self._pick(given, "relay.binary_path", "relay.binary_url", "relay.binary_sha256")
        return _signed(found, self._value("relay.release_key"))

    def ssh_user(self) -> str:
        return self._value("node.ssh_user") or "root"

    def ssh_port(self) -> int:
        return int(self._value("node.ssh_port") or 22)

    def path_of(self, program: str) -> str:
        """The candidate for upgrades; empty: none."""
        return self._value(f"{program}.binary_path")

    def _pick(self, given: Mapping[str, Any], path: str, url: str, digest: str) -> Source:
        wanted = {name: str(given.get(name) or "") for name in ("path", "url", "sha256")}
        if wanted["path"] or wanted["url"]:
            return source_from(wanted["path"], wanted["url"], wanted["sha256"], "binary, url")
        configured = self._value(path)
        if configured:  # a file wins over the URL (configuration.md)
            return source_from(configured, "", "", path)
        return source_from("", self._value(url), self._value(digest), f"{path}, {url}")


def _signed(source: Source, key: str) -> Source:
    """Where there is a release key, only what was signed with it is installed. Raises ``InvalidInput`` and ``Refused``."""
    if not key:
        return source
    if not source.path:
        raise Refused(
            "what is behind a URL is not installed while there is a release key: its signature cannot be checked here",
            remedy="Download it with its .minisig, and give the file.",
        )
    return Source(path=source.path, sha256=signed_digest(Path(source.path), key))


def source_from(path: str, url: str, sha256: str, where: str) -> Source:
    """Checks what was given. Raises ``InvalidInput``, naming the field and the way out."""
    if path and url:
        raise InvalidInput(f"{where}: a file and a URL were given; one of them is needed")
    if path:
        file = Path(path).absolute()
        try:
            return Source(path=str(file), sha256=digest_of(file))
        except OSError as error:
            raise InvalidInput(f"{where}: {path} cannot be read: {error.strerror}") from None
    if not url:
        key = where.partition(",")[0]
        raise NothingToInstall(
            f"{where}: there is no program to install",
            remedy=f"Give --binary FILE, or --url URL --sha256 DIGEST, or set {key} in the configuration.",
        )
    if urlsplit(url).scheme not in ("https", "http") or re.search(r"[\s'\"\\]", url):
        raise InvalidInput(f"url: {url[:120]!r} is no https or http URL")
    if not _DIGEST.fullmatch(sha256.lower()):
        raise InvalidInput(
            "sha256: what is behind a URL is only installed if its SHA-256 is known beforehand; 64 hex digits are needed",
            remedy="Get it from where the program is published: sha256sum FILE",
        )
    return Source(url=url, sha256=sha256.lower())
