-- What sources remember, for a short time, of the messages behind each commit, to tell one that is sent again.
CREATE TABLE receipts (
    number INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    at     INTEGER NOT NULL, -- µs since the Unix epoch
    bytes  BLOB NOT NULL
);
CREATE INDEX receipts_by_age ON receipts (at);
