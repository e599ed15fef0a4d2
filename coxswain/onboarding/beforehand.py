"""What is refused before an onboarding is begun, so that no operation is left that failed; and once more by its steps, as
somebody else may come first meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coxswain.control_path.model import check_hops
from coxswain.errors import AlreadyExists, Conflict, InvalidInput
from coxswain.inventory import check_name, parse_control_addr
from coxswain.messages import fleet, operations
from coxswain.messages import servers as m
from coxswain.model import Node
from coxswain.onboarding.neighbours import Ask, check_node_beside_relays, check_relay_beside_nodes, relay_ports
from coxswain.operations import Operation, OperationState
from coxswain.servers import Relay, Server

__all__ = ["check_node", "check_relay", "check_rollback", "check_route", "check_server"]

_TAKEN_BACK = (OperationState.UNDONE, OperationState.CANCELLED)


def check_server(ask: Ask, name: str, host: str, port: int) -> None:
    """Raises ``AlreadyExists``: another machine than that at this address has the name. Empty: none was said."""
    if not name:
        return
    name = check_name(name)
    servers: list[Server] = ask("servers", m.ListServers())
    named = [(other.ssh_host, other.ssh_port) for other in servers if other.name == name]
    if named and (host, port) not in named:  # two may have had one name before there was a check
        raise AlreadyExists(f"name: a machine named {name!r} exists already; choose another name")


def check_node(ask: Ask, server: Server, name: str) -> Node | None:
    """Returns the node that is on the machine already. ``name``: what was said; empty: nothing.

    Raises:
        AlreadyExists: another node has the name, or is reached at the address that the new one would have.
        Conflict: the machine has a node of another name, or a relay that is in its way.
    """
    name = name and check_name(name)
    check_node_beside_relays(ask, server)
    views: list[fleet.NodeView] = ask("fleet", fleet.ListNodes(server_id=server.id))
    if views:
        there = views[0].node
        if name and there.name != name:
            raise Conflict(f"server {server.name}: the node {there.name} is on it already; a machine has one")
        return there
    ask("fleet", fleet.CheckNewNode(name, parse_control_addr(server.ssh_host)))
    return None


def check_rollback(ask: Ask, node: Node) -> None:
    """Raises ``Conflict``: the agent was installed where there was none, and none since, so there is no previous one. What
    the journal does not know for certain is for the host to say.
    """

    def journal(kind: str) -> list[Operation]:
        page: operations.OperationsPage = ask("operations", operations.ListOperations(target_id=node.id, kind=kind))
        return [operation for operation in page.operations if operation.state not in _TAKEN_BACK]

    added = journal("node.add")
    if not added or added[0].state is not OperationState.DONE or journal("node.update"):
        return
    if {step.data.get("before") for step in added[0].steps if step.name == "agent"} != {""}:
        return
    if node.agent_version != added[0].data.get("agent_version"):
        return  # another one came past this journal, as before the backup was restored that it is from
    if any(operation.state is OperationState.DONE for operation in journal("node.rollback")):
        return  # somebody had put one there
    raise Conflict(
        f"node {node.name}: there is no previous agent to put back", remedy="The next upgrade leaves one: cox nodes update"
    )


def check_relay(ask: Ask, server: Server, params: Mapping[str, Any]) -> Relay | None:
    """Returns the relay that is on the machine already. ``params``: of ``relay.add``, as it checked them.

    Raises:
        AlreadyExists: another relay has the name.
        Conflict: the machine has a relay of another name, or a node that is in its way.
    """
    name = params["name"]
    ports = relay_ports(params["endpoint"], params["egress_endpoint"], params["onion_endpoint"])
    check_relay_beside_nodes(ask, server, ports)
    relays: list[Relay] = ask("servers", m.ListRelays())
    there = next((relay for relay in relays if relay.server_id == server.id), None)
    if there is not None and name and name != there.name:
        raise Conflict(f"server {server.name}: the relay {there.name} is on it already; a machine has one")
    if there is None and name and any(relay.name == name for relay in relays):
        raise AlreadyExists(f"name: a relay named {name!r} exists already; choose another name")
    return there


def check_route(ask: Ask, route: Sequence[str]) -> None:
    """Raises ``InvalidInput``: what is named is no relay, or none that can be a hop."""
    if route:
        try:
            check_hops(route, ask("servers", m.ListRelays()))
        except InvalidInput as error:
            raise InvalidInput(f"route: {str(error).removeprefix('hops: ')}", remedy=error.remedy) from None
