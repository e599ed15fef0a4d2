"""What a failed call means to an operator, and the rules of the contract that are numbers."""

from __future__ import annotations

import grpc
import pytest

from coxswain.errors import NodeFailure, NodeRefused, NodeUnreachable
from coxswain.wire.node_control import Deadlines, RpcFailed, channel_options, explain

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "kind", "told"),
    [
        (Code.UNAVAILABLE, "ipv4:192.0.2.1:8444: Connection refused", NodeUnreachable, "no agent listens there"),
        (Code.UNAVAILABLE, "Unwrap failed (TSI_DATA_CORRUPTED)", NodeUnreachable, "the connection failed: Unwrap failed"),
        (Code.UNAVAILABLE, "Hostname Verification Check failed", NodeUnreachable, "that of another node, or"),
        (
            Code.UNAVAILABLE,
            "CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK",
            NodeUnreachable,
            "another CA issued it",
        ),
        (Code.UNAVAILABLE, "CERTIFICATE_VERIFY_FAILED: certificate has expired: OK", NodeUnreachable, "it has expired"),
        (Code.UNAVAILABLE, "CERTIFICATE_VERIFY_FAILED: x", NodeUnreachable, "not one that this controller accepts"),
        (Code.DEADLINE_EXCEEDED, "", NodeUnreachable, "no answer in time"),
        (Code.CANCELLED, "", NodeUnreachable, "the connection was closed"),
        (Code.UNIMPLEMENTED, "unknown service", NodeRefused, "UNIMPLEMENTED: unknown service"),
        (Code.FAILED_PRECONDITION, "PushConfig: stale", NodeRefused, "FAILED_PRECONDITION: PushConfig: stale"),
        # Status texts are diagnostics, and nothing reads them (node-contract.md 4.1): this one is of a conf on the node.
        (Code.INTERNAL, "ListPeers: parsing awg0.conf: line 3", NodeRefused, "INTERNAL: ListPeers: parsing awg0.conf"),
    ],
)
def test_a_failed_call_is_told_with_its_method_and_why(
    code: grpc.StatusCode, details: str, kind: type[NodeFailure], told: str
) -> None:
    error = explain(RpcFailed("GetStatus", code, details))
    assert type(error) is kind
    assert str(error).startswith("GetStatus: ")
    assert told in str(error)


def test_what_a_node_says_is_one_short_line() -> None:
    error = explain(RpcFailed("PushConfig", Code.INTERNAL, "one\r\ntwo\t" + "x" * 5_000))
    assert str(error).startswith("PushConfig: INTERNAL: one two xxx")
    assert len(str(error)) < 300
    nasty = explain(RpcFailed("PushConfig", Code.INTERNAL, "\x1b]0;owned\x07\x9b31m\u202e\x00"))
    assert str(nasty).isprintable()


def test_a_change_is_given_the_time_that_the_contract_wants() -> None:
    """A deadline that passes kills the tool that the agent is running, roll-back included (node-contract.md 4.1, 11.4)."""
    deadlines = Deadlines()
    assert deadlines.change >= 60
    assert deadlines.read == 10


def test_no_keepalive_that_an_agent_would_punish() -> None:
    """Pings closer than five minutes get the link killed (node-contract.md 2.6), which an idle stream only shows late."""
    options = dict(channel_options("127.0.0.1", "name"))
    assert options["grpc.keepalive_time_ms"] > 300_000
    assert options["grpc.use_local_subchannel_pool"] == 1
    assert options["grpc.enable_http_proxy"] == 0
