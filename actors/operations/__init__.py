"""The operations engine: ``operations`` keeps the queue, ``operation_runs`` has one actor per running operation.

An operation's blocking work is on a thread of its own (``worker.py``), so no actor ever waits for it. What it does is in the
journal (``journal.py``) before it is done; whoever takes an operation over, after a crash of its actor or of the controller,
raises its run number, and from then on nothing that an earlier thread still does can reach the journal.

What other operations did on the same since one failed is in ``others.py``: that one is neither gone on with nor taken back.
"""

from actors.operations.keeper import Operations
from actors.operations.run import OperationRun, OperationRuns, run_name

__all__ = ["OperationRun", "OperationRuns", "Operations", "run_name"]
