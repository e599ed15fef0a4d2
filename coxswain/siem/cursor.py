"""Where a consumer of the SIEM stream is, as a text that it gives back when it comes again."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coxswain.errors import InvalidInput

__all__ = ["Cursor"]

_FORM = re.compile(r"([0-9]{1,19})\.([0-9]{1,19})(\.b)?")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the live stream, which lasts as long as the daemon runs, and one among the records in the store.

    Attributes:
        seq: number of the last event of the live stream that is dealt with.
        record: number of the last session record that was told, and before which all were.
        behind: records after it have to be read from the store before the live stream goes on.
    """

    seq: int
    record: int
    behind: bool = False

    def __str__(self) -> str:
        return f"{self.seq}.{self.record}{'.b' if self.behind else ''}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises ``InvalidInput``."""
        match = _FORM.fullmatch(text)
        if match is None or max(int(match[1]), int(match[2])) >= 2**63:
            raise InvalidInput(f"cursor: {text[:60]!a} is none of ours; give the last one that came with an event, or none")
        return cls(int(match[1]), int(match[2]), bool(match[3]))
