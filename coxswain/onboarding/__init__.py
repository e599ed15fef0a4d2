"""From an address to a node or relay that works, and back: the operations on machines (fleet-model.md 3).

One module per concern: ``facts``, ``binary`` and ``units`` say what to do and decide nothing by themselves; ``access``
opens a host; ``install`` holds the steps that nodes and relays share; ``server``, ``node``, ``relay`` and ``rollout`` are
the kinds of operations.
"""
