"""The fleet's public key infrastructure; see docs/pki.md."""

from coxswain.pki.certificates import (
    Authority,
    Leaf,
    Role,
    create_authorities,
    device_fingerprint,
    fingerprint,
    issue_controller_leaf,
    issue_device_leaf,
    issue_grpc_leaf,
    issue_node_leaf,
    issue_relay_leaf,
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
    "device_fingerprint",
    "fingerprint",
    "issue_controller_leaf",
    "issue_device_leaf",
    "issue_grpc_leaf",
    "issue_node_leaf",
    "issue_relay_leaf",
    "read_csr",
    "renewal_due_at",
    "server_name_of",
]
