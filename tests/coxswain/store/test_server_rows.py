"""Rows of machines, on each backend."""

from coxswain.servers import Server
from coxswain.store import servers

NOW = 1_767_225_600.25


def test_a_machine_is_found_by_its_id_its_name_and_its_address(store):
    made = [
        Server(id="srv_1", name="paris", ssh_host="192.0.2.1", facts={"arch": "x86_64"}, created_at=NOW, updated_at=NOW),
        Server(id="srv_2", name="192.0.2.1", ssh_host="192.0.2.2", created_at=NOW + 1, updated_at=NOW),
        Server(id="srv_3", name="rome", ssh_host="192.0.2.1", ssh_port=2222, created_at=NOW - 1, updated_at=NOW),
    ]
    with store.write() as tx:
        for server in made:
            servers.insert_server(tx, server)
    with store.read() as tx:
        for key, ids in {"srv_1": [1], "paris": [1], "192.0.2.1": [3, 1, 2], "nonsuch": [], "": []}.items():
            assert [s.id for s in servers.servers_called(tx, key)] == [f"srv_{i}" for i in ids], key
        assert servers.servers_called(tx, "paris")[0].facts == {"arch": "x86_64"}
