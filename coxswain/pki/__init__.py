"""The fleet's public key infrastructure; see docs/pki.md."""

from coxswain.pki.certificates import (
    Authority,
    Leaf,
    Role,
    create_authorities,
    create_heir,
    device_fingerprint,
    fingerprint,
    issue_controller_leaf,
    issue_device_leaf,
    issue_grpc_leaf,
    issue_hop_leaf,
    issue_node_leaf,
    issue_relay_leaf,
    issued_by,
    renewal_due_at,
    server_name_of,
)
from coxswain.pki.csr import Csr, read_csr

__all__ = [
    "Authority",
    "Csr",
    "Leaf",
    "Role",
    "create_authorities",
    "create_heir",
    "device_fingerprint",
    "fingerprint",
    "issue_controller_leaf",
    "issue_device_leaf",
    "issue_grpc_leaf",
    "issue_hop_leaf",
    "issue_node_leaf",
    "issue_relay_leaf",
    "issued_by",
    "read_csr",
    "renewal_due_at",
    "server_name_of",
]
