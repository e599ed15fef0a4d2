"""The SIEM stream: ``siem_stream`` and its gRPC server on the I/O loop (management-plane.md 5)."""

from actors.siem.actor import SiemStream
from actors.siem.server import MonitorServer

__all__ = ["MonitorServer", "SiemStream"]
