"""Each page has a picture in the docs, and a small one."""

from __future__ import annotations

from pathlib import Path

from coxswain.web.table import PAGES

_ROOT = Path(__file__).resolve().parents[2]
_ONE_OF = {f"/{kind}s/{{key}}": kind for kind in ("node", "user", "device", "operation", "relay", "alert")}


def test_each_page_has_a_picture_that_the_docs_show() -> None:
    text = (_ROOT / "docs/dashboard.md").read_text()
    for path in (route.path for route in PAGES if not route.path.startswith("/ui/")):
        name = f"images/dashboard-{_ONE_OF.get(path) or path.strip('/') or 'fleet'}.png"
        assert f"({name})" in text, f"{path}: make its picture with tools/screenshots, and show it in docs/dashboard.md"
        size = (_ROOT / "docs" / name).stat().st_size
        assert 5_000 < size < 150_000, name
