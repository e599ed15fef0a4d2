"""coxswain: the private, always-on controller of a VPN fleet (library: domain and adapters)."""

__version__ = "0.1.0"
