"""A package, so that pytest imports from the root of the project, not from this folder with its ``coxswain`` in it."""
