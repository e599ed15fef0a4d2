-- Intermediates beside the one that signs (table authorities): the heir, which has a key, and those from before, which have none.

CREATE TABLE authority_lines (
    serial TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    cert_pem TEXT NOT NULL,
    key_sealed BLOB,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
