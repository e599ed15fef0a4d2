"""Sessions: who was connected where, for how long, and how much they moved."""

from coxswain.sessions.book import NODE_GONE_S, ONLINE_S, Changes, SessionBook
from coxswain.sessions.session import Key, OpenSession

__all__ = ["NODE_GONE_S", "ONLINE_S", "Changes", "Key", "OpenSession", "SessionBook"]
