"""The region that a request asks for: one of ``fleet.regions``, if the operator wrote down which there are."""

from __future__ import annotations

from collections.abc import Callable

from coxswain.api.call import Call
from coxswain.errors import InvalidInput

__all__ = ["asked_region"]


def asked_region(call: Call, present: Callable[[], str] = str) -> str | None:
    """From the body; None: it is not in it. What is there already may stay.

    Args:
        call: the request.
        present: asked for the region that the thing has now, if it matters.

    Raises:
        InvalidInput: it is none of those.
    """
    region: str | None = call.body.get("region", str)
    known: list[str] = call.services.setting("fleet.regions")
    if not region or not known or region in known or region == present():
        return region
    raise InvalidInput(
        f"region: {region[:80]!r} is none of fleet.regions; it takes {', '.join(known[:20])}",
        remedy="Add it to fleet.regions in the configuration, then: cox config reload",
    )
