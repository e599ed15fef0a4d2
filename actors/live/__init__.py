"""The live stream's clients: their sockets on the I/O loop, and the actor that looks after them."""

from actors.live.actor import LiveStreams
from actors.live.fanout import Fanout

__all__ = ["Fanout", "LiveStreams"]
