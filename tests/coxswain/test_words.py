"""Words for people."""

import pytest

from coxswain.words import counted


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (12_345, "12345 entries")],
)
def test_things_are_counted_as_people_do(count, words):
    assert counted(count, "entry", "entries") == words


def test_most_nouns_need_no_help():
    assert (counted(1, "node"), counted(2, "node")) == ("1 node", "2 nodes")
