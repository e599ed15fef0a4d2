"""What a process asks of the system it runs on."""

from __future__ import annotations

import resource
from contextlib import suppress

__all__ = ["raise_descriptor_limit"]


def raise_descriptor_limit() -> int:
    """As many open descriptors as this process may have: a link is one, a browser or a circuit a few, and the soft limit is
    1,024 under systemd.

    Returns the limit that holds now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
