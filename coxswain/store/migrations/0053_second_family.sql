-- Whether the node's agent said that it serves clients' IPv6. Addresses need no table: each follows from the IPv4 one, which is
-- nowhere twice (addresses, 0021).

ALTER TABLE nodes ADD COLUMN tunnel_ipv6 INTEGER NOT NULL DEFAULT 0;
