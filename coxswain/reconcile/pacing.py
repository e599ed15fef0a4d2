"""How long to wait before the next try. Pure; randomness is passed in.

Full jitter everywhere (a delay is drawn from its whole range): when a thousand links fail at once, they must not come back
at once.
"""

from __future__ import annotations

import random

__all__ = ["heal_delay", "reconnect_delay", "verify_delay"]

_QUICK_PHASE_S = 60.0
_QUICK_MAX_S = 1.2
_RECONNECT_MAX_S = 30.0
_HEAL_FIRST_S = 1.0
_HEAL_MAX_S = 60.0


def reconnect_delay(lost_for_s: float, rng: random.Random) -> float:
    """Seconds until the next connection attempt.

    A node that restarts should be live again within two seconds of listening, so the first minute is quick. After that the
    ceiling grows with the outage, to half a minute: a dead node is ordinary life and must cost nothing.

    Args:
        lost_for_s: for how long there has been no connection.
        rng: source of the jitter.
    """
    if lost_for_s < _QUICK_PHASE_S:
        return rng.uniform(0.2, _QUICK_MAX_S)
    ceiling = min(_RECONNECT_MAX_S, lost_for_s / 10)
    return rng.uniform(_QUICK_MAX_S, ceiling)


def heal_delay(failures: int, rng: random.Random) -> float:
    """Seconds until the next attempt to mend a node that answers but could not be mended ``failures`` times in a row."""
    ceiling = min(_HEAL_MAX_S, _HEAL_FIRST_S * 2.0 ** min(failures, 16))
    return rng.uniform(_HEAL_FIRST_S / 2, ceiling)


def verify_delay(rng: random.Random) -> float:
    """Seconds between a push that the node acknowledged and the look that checks what it really has.

    Spread, because one change may touch the whole fleet, and the check costs more than the push.
    """
    return rng.uniform(1.0, 6.0)
