"""What an operator may choose: the section ``data_plane`` of node.yaml."""

from pathlib import Path

import pytest

from coxswain.agent.config import load_config
from coxswain.agent.wireguard.settings import FirewallChoice, WireguardSettings
from coxswain.errors import InvalidInput


def test_defaults_are_those_of_the_contract(tmp_path):
    config = load_config(tmp_path, {})
    assert config.wireguard == WireguardSettings(Path("/etc/amnezia/amneziawg"), FirewallChoice.AUTO)
    assert config.poll_interval_s == 5.0


def test_the_file_and_the_environment_are_read(tmp_path):
    (tmp_path / "node.yaml").write_text("data_plane: {firewall: nftables, conf_directory: /srv/confs, poll_interval_s: 1}\n")
    config = load_config(tmp_path, {"NODE_DATA_PLANE__FIREWALL": "iptables"})
    assert config.wireguard == WireguardSettings(Path("/srv/confs"), FirewallChoice.IPTABLES)
    assert config.poll_interval_s == 1.0


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("firewall: pf", "data_plane.firewall: 'pf' is none of auto, nftables, iptables"),
        ("firewall: [auto]", "data_plane.firewall"),
        ("conf_directory: confs", "data_plane.conf_directory: 'confs' is not an absolute path"),
        ("poll_interval_s: 0", "data_plane.poll_interval_s"),
        ("poll_interval_s: often", "data_plane.poll_interval_s"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path, setting, named):
    (tmp_path / "node.yaml").write_text(f"data_plane: {{{setting}}}\n")
    with pytest.raises(InvalidInput) as caught:
        load_config(tmp_path, {})
    assert named in str(caught.value)
