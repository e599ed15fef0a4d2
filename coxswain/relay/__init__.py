"""Relays: yamux tunnels, TLS over any byte stream, and the relay program ``cox-relay`` that stands at their other end.

``yamux_core`` and ``yamux`` multiplex streams over one connection; ``byte_stream`` and ``stream_tls`` are what they and
everything here read, write and nest. None of it starts a thread; all of it runs on the caller's asyncio loop.
"""
