"""Sessions: who was connected where, for how long, and how much they moved."""

from coxswain.sessions.book import NODE_GONE_S, ONLINE_S, Boundary, Changes, SessionBook
from coxswain.sessions.session import Key, OpenSession, source_ip

__all__ = ["NODE_GONE_S", "ONLINE_S", "Boundary", "Changes", "Key", "OpenSession", "SessionBook", "source_ip"]
