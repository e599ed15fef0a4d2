"""Hosts over SSH: who they are, what is run and put there. Blocking; used on threads of operations only."""

from coxswain.ssh.connection import SshHost, connect, see_host_key
from coxswain.ssh.dial import Dialer, DirectDialer
from coxswain.ssh.host import CommandFailed, Done, Host, SentFile
from coxswain.ssh.hostkey import HostKeyChanged, fingerprint_of, host_key_text, parse_host_key
from coxswain.ssh.identity import COMMENT, SshIdentity
from coxswain.ssh.local import LocalHost

__all__ = [
    "COMMENT",
    "CommandFailed",
    "Dialer",
    "DirectDialer",
    "Done",
    "Host",
    "HostKeyChanged",
    "LocalHost",
    "SentFile",
    "SshHost",
    "SshIdentity",
    "connect",
    "fingerprint_of",
    "host_key_text",
    "parse_host_key",
    "see_host_key",
]
