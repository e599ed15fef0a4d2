"""The record of every management action: written with the change itself, chained, numbered without gaps."""

from coxswain.audit.log import Appended, append_outbox, enqueue, local_caller, record, seq_of, waiting
from coxswain.audit.merkle import CompactRange, hash_children, hash_leaf, root_of
from coxswain.audit.query import list_entries
from coxswain.audit.record import canonical_bytes, leaf_hash, row_hash
from coxswain.audit.tree import head, load_tree

__all__ = [
    "Appended",
    "CompactRange",
    "append_outbox",
    "canonical_bytes",
    "enqueue",
    "hash_children",
    "hash_leaf",
    "head",
    "leaf_hash",
    "list_entries",
    "load_tree",
    "local_caller",
    "record",
    "root_of",
    "row_hash",
    "seq_of",
    "waiting",
]
