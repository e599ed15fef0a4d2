"""The scenarios of ``tools/bench``. Each is a function that gets a ``Bench`` and notes figures in its report."""
