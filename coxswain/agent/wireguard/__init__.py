"""The ``wireguard`` data plane: interfaces, peers, routes and rules of a real host (node-contract.md 6, 7).

``plane.py`` is what the agent sees (``open_plane``). Below it: ``interface.py`` (a conf and its live state), ``tools.py``
(awg, or plain wg), ``firewall.py`` and ``nftables.py`` (the network policy), ``commands.py`` (running tools), ``conf.py``,
``dump.py`` and ``routes.py``. ``settings.py`` is what an operator may choose.
"""
