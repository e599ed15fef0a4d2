"""The system user that a program runs as on its host, and what belongs to it there.

Agents of ours and relays are no root. An agent says itself which user it is made for (``node runs-as``); an existing one, or
an older one of ours, does not know the question and is root. So a host that changes agents in place, by an upgrade or by a
rollback, gets the unit and the ownership that the agent in place needs.

Whoever has taken over an agent has that user's rights, and gets none of root's by what root does in its directories:

- they are root's, with write access for the user's group and the sticky bit: the agent replaces its own files, and neither
  its certificate, nor its trust anchor, nor its settings, nor the rules about its control port
- root follows no links there, takes no name from there for a path, and gives away only what agents write themselves
"""

from __future__ import annotations

from coxswain.errors import NodeMisbehaved
from coxswain.onboarding.units import CONF_DIRECTORY, GUARD_FILE, NODE, RELAY, ROOT, Program
from coxswain.ssh import Host

__all__ = ["hand_over", "made_for", "take_back"]

_ASK = f'u=$({NODE.binary} runs-as 2>/dev/null </dev/null) || u=; [ "$u" = {NODE.account} ] || u={ROOT}'

_CONFS = f"""\
c={CONF_DIRECTORY}
[ -d $c ] || {{ mkdir -p -m 755 ${{c%/*}}; mkdir -m 700 $c; }}
"""
"""Where confs go. An existing agent would make it, and may not within its unit, where only what was there can be written to;
tools that did not come from the package have not made it either.
"""

_MAKE = """\
getent passwd "$u" >/dev/null || \\
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$u"
"""

_NODE = f"""\
d={NODE.directory}; c={CONF_DIRECTORY}
still=-ignore_readdir_race # an agent that runs replaces files meanwhile
any() {{ [ $# -gt 1 ] || [ -e "$1" ] || [ -L "$1" ]; }}
own() {{ # what agents write themselves; of the confs those with the node's key, as others are an operator's tunnels
    [ ! -d $d ] || find $d $still -maxdepth 1 -type f -links 1 \\( -name node.key -o -name '*-node.json' \\
        -o -name '*-revision' -o -name netpolicy.json -o -name xray-config.json -o -name 'simulated-*.json' \\
        -o -name '*.tmp' \\) "$@"
    any $c/* || return 0
    k=$(sed -n 's/.*"private_key": *"\\([A-Za-z0-9+/=]*\\)".*/\\1/p' $d/awg-node.json 2>/dev/null | head -n 1)
    [ -z "$k" ] || printf 'PrivateKey = %s\\n' "$k" | grep -lZxF -D skip -f - $c/* 2>/dev/null |
        xargs -0 -r -I% find % $still -maxdepth 0 -type f -links 1 "$@"
    find $c $still -maxdepth 1 -type f -links 1 -name 'awg*.tmp' "$@" # cut off before the key
}}
given() {{ # what is put there for them to read
    there=
    for f in $d/node.crt $d/ca.crt $d/node.yaml {GUARD_FILE}; do [ ! -e $f ] || there="$there $f"; done
    [ -z "$there" ] || find $there -maxdepth 0 -type f -links 1 -user root "$@"
}}
[ "$u" = {ROOT} ] || {_MAKE.strip()}
theirs=$(own ! -user "$u" -print) || theirs=unknown # asked once more below, and what fails there is told
if [ -n "$theirs" ] && systemctl is-active --quiet {NODE.name}.service; then
    systemctl stop {NODE.name}.service # it could go on writing files that are the other user's
fi
if [ "$u" = {ROOT} ]; then
    [ ! -d $d ] || {{ chown root: $d; chmod 755 $d; }}
    [ ! -d $c ] || {{ chown root: $c; chmod 700 $c; }}
    given -exec chgrp -h root {{}} +
else
    [ -d ${{c%/*}} ] || mkdir -p -m 755 ${{c%/*}}
    chmod a+x ${{c%/*}}
    install -d -o root -g "$u" -m 1775 $d
    install -d -o root -g "$u" -m 1770 $c
    given -exec chgrp -h "$u" {{}} + ! -perm -g=r -exec chmod g+r {{}} +
fi
[ -z "$theirs" ] || own ! -user "$u" -exec chown -h "$u:" {{}} +
"""

_RELAY = f"""\
d={RELAY.directory}
{_MAKE.strip()}
mkdir -p -m 755 $d
chown root:"$u" $d; chmod 1775 $d
find $d -maxdepth 1 -type f -links 1 \\( -name '*.key' -o -name targets.policy \\) ! -user "$u" -exec chown -h "$u:" {{}} +
"""
"""Its directory stays root's, with the sticky bit: a relay replaces its policy, and no certificate."""

_FORGET = """\
! getent passwd {account} >/dev/null || userdel -f {account}
! getent group {account} >/dev/null || groupdel {account}
rm -rf /var/cache/{account}
"""


def made_for(host: Host) -> str:
    """The user that the agent in place runs as. Nothing is changed."""
    told = host.run(f'{_ASK}\necho "$u"', what="asking which user the agent runs as").stdout.strip()
    return NODE.account if told == NODE.account else ROOT


def hand_over(host: Host, program: Program) -> str:
    """Makes the user that the program in place runs as, if it is missing, and gives it what it writes or has to keep for
    itself. What belongs to it already stays as it is, and so does what runs; a service whose files change hands is stopped
    before, to be started with the unit for its user. May be repeated. Returns the user's name.

    Raises:
        CommandFailed: no such tool, or an account that cannot be made.
    """
    ask, body = (f"{_ASK}\n{_CONFS}", _NODE) if program == NODE else (f"u={program.account}", _RELAY)
    script = f'set -e\n{ask}\n{body}echo "$u"'
    told = host.run(script, what=f"giving {program.name} the user that it runs as, and that user its files").stdout.strip()
    if told not in {program.account, ROOT}:
        raise NodeMisbehaved(f"{host.name}: asked which user {program.name} runs as, it said {told[:60]!r}")
    return told


def take_back(host: Host, program: Program) -> None:
    """All is root's again, and the user is gone, unless a unit that is there wants it. May be repeated, and comes before or
    after the files are removed.
    """
    keys = (
        f"[ ! -d {RELAY.directory} ] || {{ chown root: {RELAY.directory}; chmod 755 {RELAY.directory}; "
        f"chown -h root: {RELAY.directory}/*.key {RELAY.directory}/*.policy 2>/dev/null || true; }}\n"
    )
    wanted = f"! grep -qsxF User={program.account} /etc/systemd/system/*.service || exit 0"
    body = f"u={ROOT}\n{_NODE}" if program == NODE else keys
    script = f"set -e\n{wanted}\n{body}{_FORGET.format(account=program.account)}"
    host.run(script, what=f"removing the user {program.account}")
