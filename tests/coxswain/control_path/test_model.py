"""Which relays make a route, and that what is no route is never a direct one."""

from __future__ import annotations

import pytest

from coxswain.control_path.egress import connect_line
from coxswain.control_path.model import DIRECT, Route, check_hops, resolve
from coxswain.control_path.routes import Routes
from coxswain.errors import InvalidInput, NodeUnreachable, Refused, Unavailable
from coxswain.servers import Relay, RelayKind


def relay(name: str, **more: object) -> Relay:
    values: dict[str, object] = {"egress_endpoint": f"{name}.example:8456", "status": "active", "onion_pubkey": "s3cret"}
    return Relay(**({"id": f"rly_{name}", "name": name} | values | more))  # type: ignore[arg-type]


FLEET = [
    relay("a"),
    relay("b", onion_endpoint="b.example:8457"),
    relay("c", onion_endpoint="c.example:8457"),
    relay("ill", status="error"),
    relay("dry", egress_endpoint=""),
    relay("inner", kind=RelayKind.EMBEDDED),
]


def test_hops_are_given_by_name_or_id_and_kept_by_id() -> None:
    assert check_hops(["a", "rly_b"], FLEET) == ("rly_a", "rly_b")
    assert check_hops([], FLEET) == ()
    assert check_hops(["ill"], FLEET) == ("rly_ill",), "it may be mended by the time it is needed"


@pytest.mark.parametrize(
    ("hops", "why"),
    [
        (["nobody"], "no relay with the id or name 'nobody'"),
        (["a", "rly_a"], "relay a comes twice"),
        (["dry"], "relay dry has no egress role"),
        (["inner"], "relay inner is the one inside the controller"),
        (["a", "b", "c", "ill"], "4 relays; a control path has at most 3"),
    ],
)
def test_what_can_be_no_path_is_refused_by_name(hops: list[str], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        check_hops(hops, FLEET)


@pytest.mark.parametrize(
    ("hops", "why"), [(["rly_gone"], "gone"), (["rly_a", "rly_ill"], "ill.* is error"), (["dry"], "egress")]
)
def test_a_hop_that_is_not_fit_makes_no_route(hops: list[str], why: str) -> None:
    with pytest.raises(Refused, match=f"{why}.*nothing is dialled"):
        resolve(hops, FLEET)


def test_circuits_only_where_every_hop_can_do_that() -> None:
    assert resolve(["b", "c"], FLEET).kind == "onion"
    assert resolve(["a", "b"], FLEET).kind == "egress"
    assert resolve([], FLEET) == DIRECT and DIRECT.kind == "direct"
    assert "s3cret" not in repr(resolve(["b"], FLEET)), "who knows the key has a proxy (relay-contract.md 6.6)"


def test_a_machine_that_is_a_hop_is_reached_by_the_hops_before_it() -> None:
    route = resolve(["a", "b", "c"], FLEET)
    assert [hop.name for hop in route.before("c.example").hops] == ["a", "b"]
    assert route.before("a.example").is_direct
    assert route.before("elsewhere.example") == route


def test_nothing_is_dialled_until_somebody_said_by_which_route() -> None:
    routes = Routes()
    with pytest.raises(Unavailable, match="not known"):
        routes.current()
    routes.set(DIRECT)
    assert routes.current() == (1, DIRECT)
    routes.refuse(Refused("no", remedy="mend it"))
    with pytest.raises(Refused) as caught:
        routes.current()
    assert caught.value.remedy == "mend it"


def test_the_same_route_again_moves_nobody() -> None:
    heard: list[tuple[int, Route]] = []
    routes = Routes()
    routes.on_change(lambda number, route: heard.append((number, route)))
    over = resolve(["a"], FLEET)
    assert [routes.set(DIRECT), routes.set(over), routes.set(resolve(["a"], FLEET))] == [True, True, False]
    routes.refuse(Unavailable("for a moment"))
    assert not routes.set(over)
    assert heard == [(1, DIRECT), (2, over)]


@pytest.mark.parametrize("target", ["", "a\nb:1", "a:1\r", "x" * 256])
def test_no_line_of_another_form_is_sent(target: str) -> None:
    with pytest.raises(NodeUnreachable):
        connect_line(target)


def test_the_line_is_byte_exact() -> None:
    assert connect_line("[2001:db8::1]:8444") == b"[2001:db8::1]:8444\n"
