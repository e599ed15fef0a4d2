"""``cox doctor``: looks at an installation, running or stopped, and says what to do about what it finds.

    files.py      configuration, permissions, keys, disk space, clock
    state.py      the database, certificates, audit log and the files beside it
    daemon.py     a running daemon, asked through the API: its parts, its nodes, what waits

Each is a set of functions that yield findings; none of them changes anything.
"""

from coxswain.doctor.finding import Finding, Level

__all__ = ["Finding", "Level"]
