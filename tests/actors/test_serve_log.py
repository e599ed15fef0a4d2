"""The daemon's log: a line for each message, whoever wrote what is in it."""

from __future__ import annotations

import logging
import sys

from actors.serve import OneLine


def test_what_a_host_sent_begins_no_line_and_moves_no_cursor():
    nasty = "bye\n2026-01-01 00:00:00 INFO    audit all is well\r\x1b[2J\x9b31m\u202e\x00"
    try:
        int(nasty)
    except ValueError:
        failed = sys.exc_info()
    record = logging.LogRecord("cox", logging.INFO, "", 0, "it said: %s", (nasty,), failed)
    first, *traceback = OneLine("%(asctime)s %(levelname)-7s %(name)s %(message)s").format(record).split("\n")
    assert "it said: bye | 2026-01-01" in first
    assert first.isprintable()
    assert traceback[0].startswith("Traceback")
    assert all(line.replace("\t", "").isprintable() for line in traceback)
