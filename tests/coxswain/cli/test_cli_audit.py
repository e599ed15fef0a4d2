"""``cox audit`` against a real controller: lists and filters, checkpoints, verification, proofs, export."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actors.main import cli
from coxswain.audit.offline import main as offline
from coxswain.messages.audit import VerifyAudit
from tests.fleet import PERSONAL, Controller, lone_controller
from tests.support import an_addr, eventually

Cox = Callable[..., Result]


def cox_of(controller: Controller) -> Cox:
    def run(*arguments: str, code: int = 0, text: str = "", config: bool = True) -> Result:
        where = ["--config", str(controller.home.parent / "cox.yaml")] if config else []
        result = CliRunner().invoke(cli, [*arguments, *where], input=text, prog_name="cox")
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        return result

    return run


@pytest.fixture
def cox(controller: Controller) -> Cox:
    return cox_of(controller)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Controller]:
    """A controller whose database the test may harm."""
    with lone_controller(tmp_path, config=PERSONAL) as running:
        yield running


def records(cox: Cox, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cox("audit", "--json", *arguments).stdout)
    return found


def test_the_log_is_filtered(cox: Cox, controller: Controller) -> None:
    ids = [controller.client.post("/api/nodes", {"name": f"f{n}", "control_addr": an_addr()})["id"] for n in range(3)]
    controller.client.post("/api/nodes/f1/disable")
    assert [e["target_id"] for e in records(cox, "--action", "node.add", "--limit", "3")] == ids[::-1]
    assert {e["action"] for e in records(cox, "--target", ids[1])} == {"node.add", records(cox, "--limit", "1")[0]["action"]}
    assert records(cox, "--actor", "nobody") == []
    assert records(cox, "--result", "error", "--target", ids[0]) == []
    assert records(cox, "--since", "1h")[0]["seq"] == records(cox)[0]["seq"]
    assert records(cox, "--until", "1h") == []
    assert records(cox, "--since", "2020-01-01", "--until", "2020-02-01T00:00:00Z") == []
    middle = records(cox, "--action", "node.add", "--limit", "3")[1]
    assert records(cox, "--since", middle["at"], "--until", middle["at"])[0]["seq"] == middle["seq"]
    table = cox("audit", "--limit", "2").stdout.splitlines()
    assert len(table) == 3 and table[0].split() == ["TIME", "ACTOR", "KIND", "ACTION", "TARGET", "RESULT", "ERROR", "SEQ"]
    cox("audit", "--since", "yesterday", code=2)
    cox("audit", "--limit", "0", code=2)
    assert len(records(cox, "--limit", "5000")) == min(1_000, len(records(cox, "--limit", "1000")))


def test_a_page_says_where_the_next_one_is(controller: Controller) -> None:
    for number in range(5):
        controller.client.post("/api/nodes", {"name": f"p{number}", "control_addr": an_addr()})
    seen: list[int] = []
    after = ""
    for _ in range(3):
        page = controller.client.get(f"/api/audit?limit=2{after}")
        seen += [e["seq"] for e in page]
        after = f"&after={page[-1]['seq']}"
    assert seen == sorted(seen, reverse=True) and seen[0] - seen[-1] == 5


def test_every_field_of_a_record_is_as_the_contract_has_it(controller: Controller) -> None:
    """management-plane.md 3.3: what is empty is left out."""
    controller.client.post("/api/nodes", {"name": "fields", "control_addr": an_addr()})
    found = controller.client.get("/api/audit?limit=1&action=node.add")[0]
    assert re.fullmatch(r"aud_[a-z2-7]{16}", found["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", found["at"])
    assert found["actor_kind"] == "cli" and found["result"] == "ok" and "error" not in found
    assert found["target_type"] == "node" and isinstance(found["detail"], dict) and found["source_ip"] == ""


@pytest.mark.parametrize(
    "query",
    ["since=yesterday", "until=2026-01-01", "since=2026-01-01T00:00:00", "result=maybe", "limit=-1", "after=x",
     "above=-1", "actor=a&actor=b", "target=x", "since=2026-13-01T00:00:00Z", "since=0000-01-01T00:00:00Z"],
)  # fmt: skip
def test_a_bad_filter_is_named(controller: Controller, query: str) -> None:
    with pytest.raises(Exception, match=query.partition("=")[0]):
        controller.client.get(f"/api/audit?{query}")


@pytest.mark.parametrize(
    "value", ["' OR 1=1 --", "'; DROP TABLE audit_log; --", "\\", "%", "_", '" OR ""="', "$1", "?", "x' UNION SELECT 1"]
)  # fmt: skip
def test_filters_are_values_and_no_sql(cox: Cox, value: str) -> None:
    before = len(records(cox))
    for option in ("--actor", "--action", "--target"):
        assert records(cox, option, value) == []
    assert len(records(cox)) == before


def test_what_comes_is_followed(controller: Controller) -> None:
    command = [
        sys.executable,
        "-c",
        "from actors.main import main; main()",
        "audit",
        "--follow",
        "--json",
        "--action",
        "node.add",
    ]
    config = str(controller.home.parent / "cox.yaml")
    process = subprocess.Popen([*command, "--config", config], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []
    stream = process.stdout

    def read() -> None:
        lines.extend(json.loads(line) for line in stream)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        ids = []
        for number in range(4):
            ids.append(controller.client.post("/api/nodes", {"name": f"follow{number}", "control_addr": an_addr()})["id"])
            controller.client.post(f"/api/nodes/follow{number}/disable")
            eventually(lambda: lines and lines[-1]["target_id"] == ids[-1])
        assert [e["target_id"] for e in lines][-4:] == ids
        assert [e["seq"] for e in lines] == sorted({e["seq"] for e in lines}), "each once, in order"
    finally:
        process.terminate()
        reader.join(30)
        process.wait(30)
        stream.close()


def test_a_head_is_kept_and_verified_against(cox: Cox, controller: Controller, tmp_path: Path) -> None:
    controller.client.post("/api/nodes", {"name": "kept", "control_addr": an_addr()})
    cox("audit", "export", "--out", str(tmp_path / "export"))  # makes a fresh checkpoint
    kept = tmp_path / "kept"
    kept.write_text(cox("audit", "head", "--note").stdout)
    shown = cox("audit", "head", "--qr").stdout
    assert kept.read_text() in shown and "█" in shown
    head = json.loads(cox("audit", "head", "--json").stdout)
    assert head["size"] == head["checkpoint_size"] and head["findings"] == [] and head["checkpoint"] == kept.read_text()
    controller.client.post("/api/nodes", {"name": "kept2", "control_addr": an_addr()})
    assert "intact" in cox("audit", "verify", "--against", str(kept)).stdout
    assert "intact" in cox("audit", "verify", "--against", "-", text=kept.read_text()).stdout
    report = json.loads(cox("audit", "verify", "--json", "--against", str(kept)).stdout)
    assert report["ok"] and report["first_bad"] is None and report["records"] == head["size"] + 1
    lines = kept.read_text().split("\n")
    kept.write_text("\n".join([lines[0], str(int(lines[1]) - 1), *lines[2:]]))
    assert "not one of this log" in cox("audit", "verify", "--against", str(kept), code=1).stderr
    (tmp_path / "none").write_text("hello\n")
    assert "holds no checkpoint" in cox("audit", "verify", "--against", str(tmp_path / "none"), code=2).stderr


def test_proofs_and_exports_need_the_public_key_alone(cox: Cox, controller: Controller, tmp_path: Path) -> None:
    for number in range(3):
        controller.client.post("/api/nodes", {"name": f"proof{number}", "control_addr": an_addr(), "region": "Köln ☂"})
    key = tmp_path / "key"
    key.write_text(json.loads(cox("audit", "head", "--json").stdout)["public_key"])
    export, kept, proof = tmp_path / "export", tmp_path / "kept", tmp_path / "proof"
    cox("audit", "export", "--out", str(export))
    kept.write_text(cox("audit", "head", "--note").stdout)
    controller.client.post("/api/nodes", {"name": "proof-late", "control_addr": an_addr()})
    newest = records(cox, "--limit", "1")[0]["seq"]

    def check(file: Path, *arguments: str, code: int = 0) -> Result:
        return cox("audit", "check-proof", str(file), "--key", str(key), *arguments, code=code, config=False)

    assert "are what they were" in check(export, "--against", str(kept), "--max-age", "60").stdout
    cox("audit", "prove", str(newest), "--out", str(proof))
    assert f"record {newest} is in the log" in check(proof).stdout
    assert json.loads(proof.read_text())["record"]["action"] == "node.add"
    cox("audit", "prove", "--from", str(kept), "--out", str(proof))
    assert "begins with the" in check(proof, "--against", str(kept)).stdout
    assert json.loads(check(proof, "--json").stdout)["ok"] is True
    assert offline([key.read_text(), str(proof), str(kept)]) == 0
    assert offline([key.read_text(), str(export)]) == 0
    # A changed byte, another key, a missing line, another history.
    text = export.read_text()
    for changed in (
        text.replace("node.add", "node.rm", 1),
        text.replace('"seq":2', '"seq":3', 1),
        text.rpartition('{"type"')[0],
        text[:-9],
    ):
        export.write_text(changed)
        assert "does not hold" in check(export, code=1).stderr
        assert offline([key.read_text(), str(export)]) == 1
    good = json.loads(proof.read_text())
    for name, value in (("old", good["old"] - 1), ("path", good["path"][:-1]), ("old_root", good["path"][0])):
        proof.write_text(json.dumps(good | {name: value}))
        assert "does not hold" in check(proof, code=1).stderr, name
    assert offline([]) == 2 and offline([key.read_text(), str(tmp_path / "absent")]) == 1
    cox("audit", "prove", code=2)
    assert "has no record" in cox("audit", "prove", "999999", code=4).stderr


def test_a_broken_log_is_said_everywhere(own: Controller, tmp_path: Path) -> None:
    cox = cox_of(own)
    for number in range(5):
        own.client.post("/api/nodes", {"name": f"n{number}", "control_addr": an_addr()})
    cox("audit", "export", "--out", str(tmp_path / "export"))
    with own.store.write() as tx:
        before = tx.execute("SELECT target_id FROM audit_log WHERE seq = 2")[0][0]
        tx.execute("UPDATE audit_log SET target_id = 'nod_x' WHERE seq = 2")
    broken = cox("audit", "verify", code=1)
    assert "BROKEN at record 2" in broken.stderr and "record 2 was changed" in broken.stderr
    assert json.loads(cox("audit", "verify", "--json", code=1).stdout)["first_bad"] == 2
    with own.store.write() as tx:
        tx.execute("UPDATE audit_log SET target_id = ? WHERE seq = 2", (before,))
    assert "intact" in cox("audit", "verify").stdout
    assert own.client.get("/readyz")["ready"] is True
    # The newest records are cut while it runs: it notices with the next one.
    with own.store.write() as tx:
        tx.execute("DELETE FROM audit_log WHERE seq > 3")
    own.client.post("/api/nodes", {"name": "after", "control_addr": an_addr()})
    with pytest.raises(Exception, match="503"):
        own.client.get("/readyz")
    head = cox("audit", "head", code=1)
    assert "changed behind the back" in head.stderr and "cut off" in head.stderr
    assert "cut off" in cox("status").stdout
    assert "BROKEN at record" in cox("audit", "verify", code=1).stderr
    assert "nothing is signed now" in cox("audit", "prove", "1", "--out", str(tmp_path / "proof"), code=5).stderr
    assert not (tmp_path / "proof").exists()
    # As evidence it is exported all the same, and does not hold.
    cox("audit", "export", "--out", str(tmp_path / "export2"))
    key = json.loads((tmp_path / "export2").read_text().partition("\n")[0])
    assert "cut off" in key["findings"][0]
    checked = cox("audit", "check-proof", str(tmp_path / "export2"), "--key", key["public_key"], code=1, config=False)
    assert "does not hold" in checked.stderr
    assert any(e.get("kind") == "audit.broken" for e in own.client.get("/api/events/recent?after=0&limit=5000")["events"])
    # And again after a restart.
    own.stop()
    own.start()
    assert "cut off" in cox("audit", "head", code=1).stderr
    # Until an operator says why.
    cox("audit", "accept", "--reason", "I cut it myself", text="n\n", code=1)
    assert "says so" in cox("audit", "accept", "--reason", "I cut it myself", "--yes").stdout
    assert own.client.get("/readyz")["ready"] is True
    assert "intact" in cox("audit", "verify").stdout
    newest = records(cox, "--action", "audit.restart")[0]
    assert newest["detail"]["reason"] == "I cut it myself"
    assert "nothing to accept" in cox("audit", "accept", "--reason", "again", "--yes", code=5).stderr
    cox("audit", "accept", "--reason", " ", "--yes", code=2)


def test_what_a_walk_finds_is_said_until_a_walk_finds_it_no_more(own: Controller, tmp_path: Path) -> None:
    """A payload that was changed in place: the tree still extends what was signed, so it is signed on."""
    cox = cox_of(own)
    own.client.post("/api/nodes", {"name": "a", "control_addr": an_addr()})
    seq = records(cox, "--limit", "1")[0]["seq"]
    with own.store.write() as tx:
        actor = tx.execute("SELECT actor FROM audit_log WHERE seq = ?", (seq,))[0][0]
        tx.execute("UPDATE audit_log SET actor = 'nobody' WHERE seq = ?", (seq,))
    assert own.client.get("/readyz")["ready"] is True
    own.system.ask("audit_reader", VerifyAudit(), deadline=60)
    eventually(lambda: own.client.get("/api/status")["audit"]["findings"] == [f"record {seq} was changed"])
    with pytest.raises(Exception, match="503"):
        own.client.get("/readyz")
    assert "was changed" in cox("audit", "head", code=1).stderr
    cox("audit", "prove", str(seq), "--out", str(tmp_path / "proof"))
    with own.store.write() as tx:
        tx.execute("UPDATE audit_log SET actor = ? WHERE seq = ?", (actor, seq))
    own.system.ask("audit_reader", VerifyAudit(), deadline=60)
    eventually(lambda: own.client.get("/readyz"))


def test_options_before_a_subcommand_are_its_own_or_an_error(controller: Controller) -> None:
    config = str(controller.home.parent / "cox.yaml")
    result = CliRunner().invoke(cli, ["audit", "--config", config, "head", "--json"], prog_name="cox")
    assert result.exit_code == 0 and json.loads(result.stdout)["origin"]
    result = CliRunner().invoke(cli, ["audit", "--since", "1h", "verify", "--config", config], prog_name="cox")
    assert result.exit_code == 2 and "filters go with: cox audit" in result.stderr


def test_a_file_that_is_not_there_is_no_broken_log(cox: Cox) -> None:
    """Exit code 1 says that something is not what it was."""
    assert "no-such-file: cannot be read: No such file" in cox("audit", "verify", "--against", "no-such-file", code=2).stderr
    keyless = cox("audit", "check-proof", "no-such-file", code=2, config=False).stderr
    assert "--key" in keyless and "cox audit head" in keyless
    assert "cannot be read" in cox("audit", "check-proof", "no-such-file", "--key", "nor-this", code=2, config=False).stderr
