"""A fresh file in the place of one that is there."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["made_like"]


def made_like(there: Path, fresh: Path) -> None:
    """Gives ``fresh`` the mode of ``there``, and its owner as far as we may give files away: whoever reads the one reads the
    other, and that may be somebody else than who makes it. Raises ``OSError``.
    """
    status = there.stat()
    with suppress(PermissionError):
        os.chown(fresh, status.st_uid, status.st_gid)
    fresh.chmod(stat.S_IMODE(status.st_mode))
