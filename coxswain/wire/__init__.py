"""Everything that speaks the node contract's wire: generated messages, the client, validation of what goes over it."""
