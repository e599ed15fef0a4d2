"""What a process asks of the system it runs on, and of its interpreter."""

from __future__ import annotations

import gc
import resource
from contextlib import suppress

__all__ = ["collect_rarely", "raise_descriptor_limit"]


def collect_rarely() -> None:
    """For a process with thousands of long-lived objects, which make full collections long and rarely worth it. The others
    cost little: what goes well leaves no cycles, and what fails some (tracebacks, 70 objects for each dead node that is
    knocked at).
    """
    gc.set_threshold(5_000, 20, 50)
    gc.freeze()  # what was imported is never garbage


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
