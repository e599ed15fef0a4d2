"""The record of every management action: written with the change itself, chained, numbered without gaps."""

from coxswain.audit.log import (
    BrokenAt,
    append_outbox,
    enqueue,
    head,
    list_entries,
    record,
    seq_of,
    tree,
    verify,
    waiting,
)
from coxswain.audit.merkle import CompactRange, hash_children, hash_leaf, root_of
from coxswain.audit.record import canonical_bytes, leaf_hash, row_hash

__all__ = [
    "BrokenAt",
    "CompactRange",
    "append_outbox",
    "canonical_bytes",
    "enqueue",
    "hash_children",
    "hash_leaf",
    "head",
    "leaf_hash",
    "list_entries",
    "record",
    "root_of",
    "row_hash",
    "seq_of",
    "tree",
    "verify",
    "waiting",
]
