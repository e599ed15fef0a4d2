-- Certificates of relays that were removed, which still chain to the Fleet CA: AccountSync does not listen to who has one.
CREATE TABLE removed_relay_certs (
    serial TEXT PRIMARY KEY,
    not_after BIGINT NOT NULL
);
