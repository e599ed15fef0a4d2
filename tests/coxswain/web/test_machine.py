"""What a machine said of itself, in words."""

from __future__ import annotations

import pytest

from coxswain.onboarding.facts import read_facts
from coxswain.web.machine import machine_facts

_SAID = """\
user=admin
uid=1000
kernel=6.1.0-18-amd64
arch=x86_64
os=debian
os_version=12
os_name=Debian GNU/Linux 12 (bookworm)
free_mb=812
memory_mb=1945
cpus=2
python=3.11
systemd=252
awg=
uplink=eth0
sudo=yes
"""


def test_every_fact_is_said_in_words() -> None:
    found = machine_facts(read_facts(_SAID))
    assert found == [
        ("System", "Debian GNU/Linux 12 (bookworm)"),
        ("Kernel", "6.1.0-18-amd64, x86_64"),
        ("Processors", "2"),
        ("Memory", "1.9 GB"),
        ("Free on disk", "812 MB"),
        ("Way out", "eth0"),
        ("Rights", "sudo without a password"),
        ("Python", "3.11"),
        ("systemd", "252"),
        ("AmneziaWG's tools", "not installed"),
    ]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({}, []),
        ({"os": "alpine", "os_version": "3.20"}, [("System", "alpine 3.20")]),
        ({"uplink": ""}, [("Way out", "no default route")]),
        ({"sudo": "root"}, [("Rights", "root")]),
        ({"awg": "/usr/bin/awg"}, [("AmneziaWG's tools", "/usr/bin/awg")]),
        ({"free_mb": "lots", "cpus": ""}, [("Free on disk", "lots")]),
        ({"of_another_release": "yes", "empty": ""}, [("Of another release", "yes")]),
    ],
)
def test_what_was_not_said_is_left_out_and_what_is_not_known_is_shown(
    said: dict[str, str], shown: list[tuple[str, str]]
) -> None:
    assert machine_facts(said) == shown
