"""What the process asks of the system."""

from __future__ import annotations

import resource
import subprocess
import sys

from coxswain.limits import raise_descriptor_limit


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        assert raise_descriptor_limit() == hard
        assert raise_descriptor_limit() == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_full_collections_are_rare_and_leave_out_what_was_imported() -> None:
    code = "import gc; from coxswain.limits import collect_rarely; collect_rarely()"
    told = "print(*gc.get_threshold(), gc.get_freeze_count() > 0)"
    done = subprocess.run([sys.executable, "-c", f"{code}; {told}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5000", "20", "50", "True"]
