"""A range of UDP ports at which clients may dial a node, besides the one that it listens on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coxswain.errors import InvalidInput

__all__ = ["FIRST_LINK_PORT", "LEAST_PORT", "PortRange"]

LEAST_PORT = 1024
"""Below are the ports of well-known services (RFC 6335, section 6), which a host may have any of."""

FIRST_LINK_PORT = 51_820
"""UDP port of the first inner link that a node dials; that of each further one is one higher, as high as ports go
(fleet-model.md 6.2).
"""

_FORM = re.compile(r"([0-9]{1,5}) *- *([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class PortRange:
    """``low`` to ``high``, both of them included. Printed as it is written: ``20000-29999``."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"

    @staticmethod
    def parse(field: str, text: str) -> PortRange | None:
        """What an operator or the store says; empty: None. All of it has to work, as clients choose any port of it.

        Raises:
            InvalidInput: it is no range, or one that a node cannot give away. ``field``: where it was said.
        """
        if not text.strip():
            return None
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise InvalidInput(f"{field}: {text[:40]!r} is not a range of ports such as 20000-29999; empty: port 443 alone")
        found = PortRange(int(match[1]), int(match[2]))
        if found.low > found.high:
            raise InvalidInput(f"{field}: {found} ends before it begins; {found.high}-{found.low} would do")
        if found.low < LEAST_PORT or found.high > 65_535:
            raise InvalidInput(f"{field}: {found} is not within {LEAST_PORT}-{FIRST_LINK_PORT - 1}")
        if found.high >= FIRST_LINK_PORT:
            raise InvalidInput(
                f"{field}: {found} meets the ports of inner links, which are {FIRST_LINK_PORT} and above; "
                f"let it end at {FIRST_LINK_PORT - 1} at the latest"
            )
        return found
