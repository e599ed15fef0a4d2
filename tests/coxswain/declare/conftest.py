"""``cox`` beside a real controller."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from actors.main import cli
from tests.fleet import Controller

Cox = Callable[..., Result]


@pytest.fixture
def cox(controller: Controller) -> Cox:
    (controller.home.parent / "cox.yaml").write_text("posture: personal\nstate_dir: state\n")

    def run(*arguments: str, text: str = "", code: int = 0) -> Result:
        config = str(controller.home.parent / "cox.yaml")
        result = CliRunner().invoke(cli, [*arguments, "--config", config], input=text, prog_name="cox")
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        return result

    return run
