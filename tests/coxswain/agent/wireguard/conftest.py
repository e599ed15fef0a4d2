"""A host made of stand-ins: small scripts for the tools that write down how they were called (node-contract.md 6.5)."""

import base64
import random
from pathlib import Path

import pytest

from coxswain.agent.dataplane import PeerConfig
from coxswain.agent.identity import AwgIdentity, new_obfuscation
from coxswain.agent.wireguard.plane import WireguardPlane
from coxswain.agent.wireguard.settings import FirewallChoice, WireguardSettings

SCRIPT = r"""#!/bin/sh
H=@HOST@
me=${0##*/}
line="$me $*"
{ printf '%s' "$me"; for word; do printf '\037%s' "$word"; done; printf '\n'; } >> $H/calls
case "$line" in
*/dev/stdin*|*" -") number=$(/usr/bin/wc -l < $H/calls); /bin/cat /dev/stdin > $H/stdin.$number ;;
esac
while read -r pattern; do
    case "$line" in $pattern) echo "$line: it broke" >&2; /bin/cat $H/words >&2; exit 1 ;; esac
done < $H/failing
while [ "$me" = "$(/bin/cat $H/slow)" ]; do /bin/sleep 0.02; done
[ -e $H/once ] && read -r pattern < $H/once && case "$line" in $pattern) /bin/rm $H/once; exit 1 ;; esac
if [ "$me" = iptables ]; then
    rule=$(echo "$*" | /bin/sed -E 's/^-w //; s/-[AIDC] /@ /; s/(@ FORWARD) 1 /\1 /')
    case " $* " in
    *" -C "*) /bin/grep -qxF -e "$rule" $H/rules; exit ;;
    *" -D "*) /bin/grep -qxF -e "$rule" $H/rules || exit 1
        /usr/bin/awk -v r="$rule" '!gone && $0 == r { gone = 1; next } { print }' $H/rules > $H/rules.new
        /bin/mv $H/rules.new $H/rules ;;
    *) echo "$rule" >> $H/rules ;;
    esac
fi
case "$line" in
"awg show "*" dump"|"wg show "*" dump") [ -e $H/up.$2 ] && exec /bin/cat $H/dump; exit 1 ;;
"awg show "*|"wg show "*) [ -e $H/up.$2 ] || { echo "Unable to access interface: No such device" >&2; exit 1; } ;;
"awg-quick up "*) name=${2##*/}; : > $H/up.${name%.conf} ;;
"awg-quick down "*) name=${2##*/}; [ -e $H/up.${name%.conf} ] || exit 1; /bin/rm $H/up.${name%.conf} ;;
"awg-quick strip "*) /bin/grep -v -e '^MTU' -e '^Table' "$2" ;;
"awg set "*|"wg set "*) [ -e $H/up.$2 ] || { echo "Unable to modify interface: No such device" >&2; exit 1; } ;;
"ip link add "*) [ -e $H/module ] || { echo "Error: Unknown device type." >&2; exit 2; }; : > $H/up.$4 ;;
"wireguard-go "*) : > $H/up.$1 ;;
"ip link delete "*) /bin/rm $H/up.$4 ;;
"ip route show default") /bin/cat $H/default ;;
"ip -N -j rule show") /bin/cat $H/marks ;;
"ip -6 -N -j rule show") echo '[]' ;;
"ip -j route show table "*|"ip -6 -j route show table "*) /bin/cat $H/routes ;;
"nft list table "*) exit 1 ;;
esac
"""


def key(number):
    return base64.b64encode(random.Random(number).randbytes(32)).decode()


def peer(number, **fields):
    return PeerConfig(**{"public_key": key(number), "allowed_ips": (f"10.7.0.{number}/32",)} | fields)


class Plane(WireguardPlane):
    """Keeps what it was told to remember before it changed something."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.journal = []

    async def _remember(self, stored):
        self.journal.append(stored)

    async def apply_policy(self, policy, previous, journal=None, *, restoring=False):
        return await super().apply_policy(policy, previous, journal or self._remember, restoring=restoring)

    async def heal(self, policy, journal=None):
        return await super().heal(policy, journal or self._remember)


class Host:
    """PATH holds nothing but the stand-ins asked for. ``uid``: whom the agent takes itself for."""

    def __init__(self, directory, monkeypatch):
        self.directory = directory
        self.confs = directory / "amneziawg"
        self.identity = AwgIdentity(random.Random(0).randbytes(32), new_obfuscation(random.Random(1)))
        self.uid = 0
        self._bin = directory / "bin"
        self._bin.mkdir()
        monkeypatch.setenv("PATH", str(self._bin))
        monkeypatch.setattr("os.geteuid", lambda: self.uid)
        monkeypatch.delenv("WG_QUICK_USERSPACE_IMPLEMENTATION", raising=False)
        for name, content in {
            "calls": "",
            "failing": "",
            "slow": "",
            "words": "",
            "dump": "",
            "default": "",
            "rules": "",
            "marks": "[]",
            "routes": '[{"type": "unreachable", "dst": "default", "metric": 4000}]',
        }.items():
            self.write(name, content)
        self.write("default", "default via 192.0.2.254 dev eth0 proto dhcp metric 100\n")

    def write(self, name, content):
        (self.directory / name).write_text(content)

    def install(self, *tools):
        for tool in tools:
            script = self._bin / tool
            script.write_text(SCRIPT.replace("@HOST@", str(self.directory)))
            script.chmod(0o755)
        return self

    def plane(self, firewall=FirewallChoice.AUTO):
        return Plane(self.identity, WireguardSettings(self.confs, firewall))

    def failing(self, *patterns, words=""):
        """Tools called like one of these (shell patterns) fail, and say ``words``."""
        self.write("failing", "".join(f"{pattern}\n" for pattern in patterns))
        self.write("words", words)

    def failing_once(self, pattern):
        """The next tool called like this fails, and no later one."""
        self.write("once", f"{pattern}\n")

    def slow(self, tool):
        """This one takes as long as it is here."""
        self.write("slow", tool)

    def seen(self):
        """Every call so far, as lines."""
        return (self.directory / "calls").read_text().replace("\037", " ").splitlines()

    def calls(self):
        """Every call so far as a list of words, and forgets them."""
        lines = (self.directory / "calls").read_text().splitlines()
        self.write("calls", "")
        return [line.split("\037") for line in lines]

    def lines(self):
        return [" ".join(words) for words in self.calls()]

    def stdin(self, number):
        """What the ``number``-th call since the last ``calls`` read."""
        return (self.directory / f"stdin.{number}").read_text()

    def rules(self):
        """What iptables has now, one rule a line, with ``@`` for the command."""
        return (self.directory / "rules").read_text().splitlines()

    def changes(self):
        """The calls so far, without those that only look."""
        looks = (" -C ", " show", "nft list", "nft -s list", "nft -j")
        return [line for line in self.lines() if not any(look in line for look in looks)]

    def conf(self, interface="awg0"):
        return (self.confs / f"{interface}.conf").read_text()

    def is_up(self, interface="awg0"):
        return (self.directory / f"up.{interface}").exists()


@pytest.fixture
def host(tmp_path: Path, monkeypatch):
    """A host with AmneziaWG and iptables."""
    return Host(tmp_path, monkeypatch).install("awg", "awg-quick", "ip", "sysctl", "iptables")


@pytest.fixture
def plain_host(tmp_path: Path, monkeypatch):
    """A host with plain WireGuard, in userspace only."""
    return Host(tmp_path, monkeypatch).install("wg", "ip", "sysctl", "iptables", "wireguard-go")


@pytest.fixture
def bare_host(tmp_path: Path, monkeypatch):
    """A host without any tool."""
    return Host(tmp_path, monkeypatch)


class Made:
    """What test modules of this directory use."""

    key, peer = staticmethod(key), staticmethod(peer)


@pytest.fixture(scope="session")
def made():
    return Made
