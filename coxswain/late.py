"""Modules that are loaded when something of them is first wanted.

For what most daemons never use, or not for days: a library that is loaded costs memory and time at each start.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Late"]


class Late:
    """Stands for a module that is not loaded yet. Safe on every thread: Python lets a module be loaded once.

    Raises ``ImportError`` where the module would, which is later than an ``import`` statement does; what is used like this
    has to be a dependency.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        self.__dict__[attribute] = value  # from now on it is found without this
        return value
