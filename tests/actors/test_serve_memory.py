"""What the daemon does not load or hold although nobody wants it: memory is a budget (docs/performance.md)."""

import subprocess
import sys
from pathlib import Path

import pytest

from coxswain.late import Late

ROOT = Path(__file__).resolve().parents[2]
UNWANTED = ("paramiko", "invoke", "geoip2", "maxminddb", "segno", "multiprocessing", "psycopg")
"""For hosts, places, QR codes, long logs, another database: whoever uses them loads them."""

ARENAS = """
import ctypes, re, sys, tempfile, threading
from actors.serve import _limit_arenas
_limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
together, count = threading.Barrier(12), 12
def allocate():
    together.wait()
    libc.malloc(100_000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(count)]
for thread in threads: thread.start()
for thread in threads: thread.join()
with tempfile.NamedTemporaryFile() as file:
    out = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, ctypes.c_void_p(out))
    libc.fclose(ctypes.c_void_p(out))
    print(len(re.findall(rb"<heap nr", file.read())))
"""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_daemon_loads_nothing_that_most_daemons_never_use():
    code = f"import sys, actors.serve; print(*(name for name in {UNWANTED!r} if name in sys.modules))"
    assert python(code).split() == []


def test_threads_share_two_heaps():
    assert int(python(ARENAS)) <= 2


def test_a_late_module_is_the_module_once_it_is_wanted():
    code = "import sys; from coxswain.late import Late; m = Late('colorsys'); print('colorsys' in sys.modules)"
    assert python(f"{code}; print(m.rgb_to_hsv is sys.modules['colorsys'].rgb_to_hsv)").split() == ["False", "True"]


def test_what_is_not_there_is_said_as_an_import_would():
    with pytest.raises(ImportError):
        _ = Late("coxswain.no_such_module").anything
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = Late("colorsys").no_such_name
