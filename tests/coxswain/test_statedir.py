"""The state directory is private, and for one daemon at a time."""

import os
import signal
import subprocess
import sys

import pytest

from coxswain.errors import LoosePermissions, NotFound, StateDirectoryHeld
from coxswain.statedir import check_private, create_state_directory, open_state_directory

HOLDER = """
import sys
from pathlib import Path
from coxswain.statedir import open_state_directory

state = open_state_directory(Path(sys.argv[1]))
print(1, flush=True)
input()
"""


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "deep" / "state"
    create_state_directory(path)
    return path


def test_it_is_made_private_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        create_state_directory(tmp_path / "a" / "state")
        opened = open_state_directory(tmp_path / "a" / "state")
    finally:
        os.umask(old)
    assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in opened.path.iterdir())
    opened.close()


def test_an_existing_one_is_kept_but_not_if_it_is_loose(state):
    (state / "ca.key").write_text("x")
    create_state_directory(state)
    assert (state / "ca.key").read_text() == "x"
    state.chmod(0o750)
    with pytest.raises(LoosePermissions):
        create_state_directory(state)


def test_a_missing_one_is_named_with_what_makes_it(tmp_path):
    with pytest.raises(NotFound, match="nowhere") as caught:
        open_state_directory(tmp_path / "nowhere")
    assert "cox init" in caught.value.remedy


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o755, 0o770, 0o777])
def test_a_loose_directory_is_refused_with_the_command_that_mends_it(state, mode):
    state.chmod(mode)
    with pytest.raises(LoosePermissions, match=f"{mode:04o}") as caught:
        open_state_directory(state)
    assert caught.value.remedy == f"chmod 700 {state}"
    subprocess.run(caught.value.remedy.split(), check=True)
    open_state_directory(state).close()


@pytest.mark.parametrize("name", ["ca.key", "app.db", "app.db-wal", "app.db-shm"])
@pytest.mark.parametrize("mode", [0o604, 0o620, 0o640, 0o644])
def test_a_loose_secret_is_refused_with_the_command_that_mends_it(state, name, mode):
    secret = state / name
    secret.touch()
    secret.chmod(mode)
    with pytest.raises(LoosePermissions, match=name) as caught:
        open_state_directory(state)
    assert caught.value.remedy == f"chmod 600 {secret}"
    subprocess.run(caught.value.remedy.split(), check=True)
    open_state_directory(state).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_directory_of_somebody_else_is_refused(state):
    os.chown(state, 65534, 65534)
    with pytest.raises(LoosePermissions, match="belongs to user 65534"):
        open_state_directory(state)


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(state):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout.readline() == b"1\n"
            with pytest.raises(StateDirectoryHeld, match=rf"pid {other.pid}\b"):
                open_state_directory(state)
        finally:
            other.send_signal(signal.SIGKILL)
    opened = open_state_directory(state)  # a killed one leaves its file, and that means nothing
    with pytest.raises(StateDirectoryHeld, match=rf"pid {os.getpid()}\b"):
        open_state_directory(state)
    opened.close()
    open_state_directory(state).close()


def test_a_child_of_the_daemon_does_not_keep_the_lock(state):
    opened = open_state_directory(state)
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        opened.close()
        try:
            open_state_directory(state).close()
        finally:
            child.kill()


def test_a_private_file_passes(state):
    (state / "x").touch(mode=0o600)
    check_private(state / "x")
    check_private(state)
