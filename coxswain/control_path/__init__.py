"""Control paths: the relays by which the controller reaches nodes and machines (relay-contract.md 5, 6; fleet-model.md 9).

``model`` and ``onion`` are pure. ``routes`` holds which route everybody takes now. The rest is on the I/O loop: ``egress``
has the shared sessions with hops, ``ways`` opens connections along a route, and ``forward`` hands them to those who can only
dial a socket: gRPC and paramiko.
"""
