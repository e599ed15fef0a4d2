"""The running system: supervision, one module per actor, the tree. Imports ``coxswain``, never the reverse."""
