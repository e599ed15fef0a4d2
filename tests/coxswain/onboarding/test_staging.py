"""A program is put beside the present one and tried out; the host is this machine, the journal is played by the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coxswain.errors import Conflict, NodeRefused
from coxswain.onboarding.install import install, remember_key, stage
from coxswain.onboarding.units import Program
from coxswain.ssh import CommandFailed, LocalHost
from coxswain.ssh.host import digest_of

FACTS = {"arch": "x86_64", "python": "3.11"}


class Played:
    def __init__(self, program: Path) -> None:
        self.params: dict[str, Any] = {"source": {"path": str(program), "url": "", "sha256": digest_of(program)}}
        self.data: dict[str, Any] = {"facts": FACTS}
        self.remembered: dict[str, Any] = {}

    def keep(self, **values: Any) -> None:
        self.data |= values

    def remember(self, **values: Any) -> None:
        self.remembered |= values

    def say(self, _: str) -> None: ...

    def check(self) -> None: ...


class Counting(LocalHost):
    def __init__(self) -> None:
        super().__init__()
        self.commands: list[str] = []

    def execute(self, command: str, **how: Any) -> Any:
        self.commands.append(command)
        return super().execute(command, **how)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program("node", f"{tmp_path}/host/node", f"{tmp_path}/host", f"{tmp_path}/host/node.key", "cox-node")


def there(program: Program) -> None:
    """An agent from before."""
    Path(program.binary).parent.mkdir()
    script(Path(program.binary), "echo 0.3.0")


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    return path


def test_an_installation_is_two_commands(tmp_path: Path, program: Program) -> None:
    work, host = Played(script(tmp_path / "new", "echo 0.4.0")), Counting()
    install(work, host, program)  # type: ignore[arg-type]
    assert Path(program.binary).read_text() == (tmp_path / "new").read_text()
    assert work.data["agent_version"] == work.data["staged_version"] == "v0.4.0"
    assert work.remembered == {"before": ""}
    assert len(host.commands) == 2
    install(work, host, program)  # type: ignore[arg-type]
    assert len(host.commands) == 3  # it is there already


def test_on_a_host_that_told_that_nothing_is_there_it_is_one(tmp_path: Path, program: Program) -> None:
    work, host = Played(script(tmp_path / "new", "echo 0.4.0")), Counting()
    host.absent = {program.binary, program.staged, program.key}
    install(work, host, program)  # type: ignore[arg-type]
    assert (len(host.commands), work.remembered, work.data["had_key"]) == (1, {"before": ""}, False)
    work = Played(script(tmp_path / "newer", "echo 0.4.1"))
    install(work, host, program)  # type: ignore[arg-type]
    assert work.remembered == {"before": digest_of(tmp_path / "new")}  # what was made since then is seen
    assert Path(program.previous).read_text() == (tmp_path / "new").read_text()


def test_a_program_that_cannot_be_put_in_place_is_told(tmp_path: Path, program: Program) -> None:
    Path(program.binary).mkdir(parents=True)
    (Path(program.binary) / "in the way").touch()
    work = Played(script(tmp_path / "new", "echo 0.4.0"))
    with pytest.raises(CommandFailed, match=r"putting it in place failed \(exit code 1\): .*(omitting|cannot)"):
        install(work, LocalHost(), program)  # type: ignore[arg-type]
    assert Path(program.staged).exists()


def test_a_program_that_does_not_run_there_is_not_put_in_place(tmp_path: Path, program: Program) -> None:
    work = Played(script(tmp_path / "new", "echo no such processor >&2; exit 7"))
    with pytest.raises(
        CommandFailed, match=r"trying the program out \(.*node.new version\) and .* failed \(exit code 7\): no such pro"
    ):
        install(work, LocalHost(), program)  # type: ignore[arg-type]
    assert not Path(program.binary).exists()


def test_a_file_that_changed_since_it_was_asked_for_is_neither_sent_nor_run(tmp_path: Path, program: Program) -> None:
    new = script(tmp_path / "new", "echo 0.4.0")
    work = Played(new)
    there(program)
    script(new, f"touch {tmp_path}/ran; echo 0.4.0")
    with pytest.raises(NodeRefused, match="it was not installed"):
        stage(work, LocalHost(), program)  # type: ignore[arg-type]
    assert not Path(program.staged).exists()
    assert not (tmp_path / "ran").exists()


def test_nothing_is_put_beside_a_program_that_is_not_there(tmp_path: Path, program: Program) -> None:
    work = Played(script(tmp_path / "new", "echo 0.4.0"))
    with pytest.raises(Conflict, match=r"neither .*node nor its key") as caught:
        stage(work, LocalHost(), program)  # type: ignore[arg-type]
    assert "cox nodes add" in caught.value.remedy and not Path(program.staged).exists()
    work = Played(script(tmp_path / "new", "echo 0.4.0"))
    Path(program.key).parent.mkdir()
    Path(program.key).touch()  # the program alone is gone
    assert not stage(work, LocalHost(), program)  # type: ignore[arg-type]
    assert Path(program.staged).exists()


@pytest.mark.parametrize("had_key", [True, False])
def test_the_first_look_says_whether_there_was_a_key(tmp_path: Path, program: Program, had_key: bool) -> None:
    """A later one may see the key that this very operation made; its undo would leave that then."""
    work, key = Played(script(tmp_path / "new", "echo 0.4.0")), Path(program.key)
    there(program)
    if had_key:
        key.touch()
    stage(work, LocalHost(), program)  # type: ignore[arg-type]
    key.touch()
    stage(work, LocalHost(), program)  # type: ignore[arg-type]
    remember_key(work, LocalHost(), program)  # type: ignore[arg-type]
    assert work.remembered == {"had_key": had_key}


def test_without_an_earlier_look_the_host_is_asked(tmp_path: Path, program: Program) -> None:
    work = Played(script(tmp_path / "new", ""))
    remember_key(work, LocalHost(), program)  # type: ignore[arg-type]
    assert work.remembered == {"had_key": False}
