"""Makes ``docs/configuration.md`` from the table of keys; see ``tools/config-docs``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from coxswain.config import KEYS, Key

PAGE = Path(__file__).resolve().parent.parent / "docs/configuration.md"

HEAD = """\
# Configuration

<!-- made by tools/config-docs from coxswain/config/keys.py: change it there -->

One YAML file, `cox.yaml` in the working directory unless `--config` or `COX_CONFIG` says otherwise. `cox init` writes one;
`cox config check` names everything that is wrong with it, and `cox config show` prints what is in force.

- A key in the table such as `log.level` is `level:` under `log:` in the file, and `COX_LOG__LEVEL` in the environment.
- Precedence, low to high: default, preset of the posture, file, environment. Lists in the environment are
  `a,b` or `[a, "b,c"]`.
- A running daemon takes over the keys marked *live* when it gets SIGHUP (`systemctl reload`, `cox config reload`); the
  others wait for its next start, and `cox config show --pending` names those that do. A file with a problem changes nothing.
- The file need not hold what it does not change. An unknown key is an error, so a typing mistake never passes as a default.
- A variable that begins with `COX_` and is no key goes unheeded: `cox config check`, the log and `cox doctor` tell of it.
- Relative paths start at the file's directory.
- `COX_CA_PASSPHRASE` and `COX_CA_PASSPHRASE_FILE` are read when `ca.key_source` is `passphrase`; with `credential` it is
  systemd's `$CREDENTIALS_DIRECTORY`. Secrets are masked in everything that is printed.
"""

IDLE = """
## Accepted, without effect

Files of the existing controller hold these keys, so they are accepted and checked. Nothing ever acted on them; `cox
config check` and the log say so of each that is set.
"""


def cell(value: Any) -> str:
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return "-" if value in ("", []) else f"`{value}`"


def default(key: Key) -> str:
    shown = cell(key.default)
    for posture in ("personal", "enterprise"):
        if key.preset(posture) != key.default:
            shown += f"; {posture}: {cell(key.preset(posture))}"
    return shown


def table(keys: list[Key]) -> str:
    rows = ["| key | what it is | default | accepts | new value |", "|---|---|---|---|---|"]
    for key in keys:
        accepts = key.accepts or {bool: "true or false", list: "a list"}.get(key.kind, "text")
        rows.append(
            f"| `{key.name}` | {key.help} | {default(key)} | {accepts} | {'live' if key.live else 'next start'} |".replace(
                "\n", " "
            )
        )
    return "\n".join(rows) + "\n"


def page() -> str:
    idle = "\n".join(f"- `{key.name}`: {key.idle}." for key in KEYS if key.idle)
    return f"{HEAD}\n## Keys\n\n{table([key for key in KEYS if not key.idle])}{IDLE}\n{idle}\n"


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/configuration.md is not what coxswain/config/keys.py says; run tools/config-docs")
    else:
        print("up to date")
