"""The first code that runs in cox.pyz, before anything that is packed in it.

It says in a sentence what would otherwise be a stack trace (the wrong Python), and chooses where the packages are
unpacked: native extensions cannot be loaded from inside a zip file. Whoever can write there can run code as this user,
so the directory belongs to this user or to root, and nobody else may write to it. ``tools/zipapp`` puts this file into
the archive as ``__main__.py`` and fills in the names in ``@``. It imports little: every command waits for it. For the same
reason it hands over to shiv's bootstrap only where there is something to unpack; what is unpacked it starts itself.
"""

import contextlib
import os
import site
import stat
import sys
from typing import NoReturn

PYTHON, MACHINE, BUILD = "@PYTHON@", "@MACHINE@", "@BUILD@"


def refuse(sentence: str) -> NoReturn:
    sys.exit(f"cox: {sentence}")


def is_private(path: str) -> bool:
    """Whether nobody but this user and root can put files there."""
    found = os.lstat(path)
    return stat.S_ISDIR(found.st_mode) and found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022


def make_private(path: str) -> bool:
    """Makes the directory if it is not there; whether it is private and writable now."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        return is_private(path) and os.access(path, os.W_OK | os.X_OK)
    except OSError:
        return False


def cache() -> str:
    """Where to unpack: the first of these that can be had.

    ``$SHIV_ROOT``; what systemd gives a service with ``CacheDirectory=``; the user's cache; for users without a home, a
    directory of the user's own among the temporary files.
    """
    chosen = os.environ.get("SHIV_ROOT")
    if chosen:
        chosen = os.path.realpath(chosen)
        if not make_private(chosen) and not (os.path.isdir(chosen) and is_private(chosen)):
            refuse(f"SHIV_ROOT is {chosen}, which cannot be made or to which others may write: code from there is not run")
        return chosen
    given = os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if given and make_private(os.path.join(given, "cox")):
        return os.path.join(given, "cox")
    home = os.path.expanduser("~")
    own_home = False
    with contextlib.suppress(OSError):
        own_home = os.stat(home).st_uid == os.geteuid()  # sudo may leave HOME at somebody else's
    if own_home:
        path = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"), "coxswain")
        if make_private(path):
            return path
    path = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"coxswain-{os.geteuid()}")  # noqa: S108 - its owner is checked
    if make_private(path):
        return path
    refuse(f"there is no place to unpack: {path} is not this user's alone; set SHIV_ROOT to a directory that is")


def use_unpacked(root: str) -> bool:
    """Whether an earlier run unpacked this very build (its directory gets its name when it is complete); then its packages
    can be imported, before those of this Python and after its standard library, as shiv has it.
    """
    if any(name.startswith("SHIV_") and name != "SHIV_ROOT" for name in os.environ):
        return False  # somebody wants something of shiv
    name = os.path.basename(os.path.realpath(sys.argv[0]))
    packages = os.path.join(root, f"{name}_{BUILD}", "site-packages")
    if not os.path.isdir(packages):
        return False
    known = len(sys.path)
    others = (i for i, path in enumerate(sys.path) if os.path.basename(path) in ("site-packages", "dist-packages"))
    place = next(others, known)
    site.addsitedir(packages)
    sys.path[:] = sys.path[:place] + sys.path[known:] + sys.path[place:known]
    return True


def start() -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    machine = os.uname().machine
    if (version, machine) != (PYTHON, MACHINE):
        refuse(
            f"this file is for Python {PYTHON} on {MACHINE}, and this is {version} on {machine}: "
            f"call it with python{PYTHON}, or build one with tools/zipapp --for {version}"
        )
    root = os.environ["SHIV_ROOT"] = cache()
    if use_unpacked(root):
        from actors.main import main  # noqa: PLC0415 - it was not to be found before

        sys.exit(main())  # type: ignore[func-returns-value]
    from _bootstrap import bootstrap  # noqa: PLC0415 - nothing of the archive before the checks

    bootstrap()


start()
