"""The raw calls of Pykka stay inside the supervision: an ask has a deadline, a name leads to the present incarnation."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
INSIDE = ROOT / "actors" / "supervision"
FILES = [
    path
    for folder in ("actors", "coxswain")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if INSIDE not in path.parents and not path.name.endswith("_pb2.py")
]


def offences(source: str) -> list[str]:
    """``Call`` of the API and ``Work`` of an operation have an ``ask`` with a deadline of its own if none is given."""
    found = []
    for item in ast.walk(ast.parse(source)):
        match item:
            case ast.Import(names=names) if any(name.name.split(".")[0] == "pykka" for name in names):
                found.append(f"{item.lineno}: imports pykka")
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "pykka":
                found.append(f"{item.lineno}: imports from pykka")
            case ast.ImportFrom(module=str(module)) if module.startswith("actors.supervision."):
                found.append(f"{item.lineno}: imports a part of the supervision that is not public")
            case ast.Attribute(attr="actor_ref" | "proxy" | "actor_inbox"):
                found.append(f"{item.lineno}: uses .{item.attr}")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="call" | "work" | "self"), attr="ask")):
                pass
            case ast.Call(func=ast.Attribute(attr="ask"), args=args, keywords=keywords):
                if len(args) < 3 and not any(keyword.arg == "deadline" for keyword in keywords):
                    found.append(f"{item.lineno}: asks without a deadline")
            case _:
                pass
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_goes_around_the_supervision(path):
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pykka",
        "from pykka import ActorRegistry",
        "import pykka.messages",
        "from actors.supervision.actor import Actor",
        "self.actor_ref.tell(1)",
        "ref.proxy().go()",
        "ref.ask(1)",
        "context.ask('fleet', 1, timeout=3)",
    ],
)
def test_the_lint_sees(source):
    assert offences(source)


def test_the_lint_lets_pass():
    assert offences("context.ask('fleet', 1, deadline=3)\nfrom actors.supervision import Actor") == []
    assert offences("call.ask('fleet', 1)\nwork.ask('fleet', 1)\nself._worker.ask('fleet', 1, 3.0)") == []
    assert len(FILES) > 50
