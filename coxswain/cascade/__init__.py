"""Paths over two or three nodes: what is kept of them, and what it means for each node. Pure.

``types`` has the values, ``resources`` what a link needs on the node that dials it, ``wiring`` turns paths and bindings
into inner links, edge peers and transits of every node, ``stages`` cuts a change of a binding into steps of which none cuts
it off.
"""
