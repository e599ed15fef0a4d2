"""What a device is given: which nodes, which keys, which address, and what its client is told. Pure functions of values."""
