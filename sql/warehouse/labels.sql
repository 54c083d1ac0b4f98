-- What transactions turned out to be. A later label on the same transaction replaces an earlier one.
-- Files are kept by the hour of labelled_at.
CREATE TABLE labels (
    transaction_id VARCHAR NOT NULL,
    merchant_id    VARCHAR NOT NULL,
    labelled_at    TIMESTAMP(3) WITH TIME ZONE NOT NULL,      -- when it became known
    verdict        VARCHAR NOT NULL,                          -- fraud, legit
    source         VARCHAR NOT NULL,                          -- chargeback, analyst, merchant, telegram
    note           VARCHAR
);
