-- The log: outbox, event store and bus in one. A block is what one commit stored, or several merged by compaction.
CREATE TABLE topics (
    name       TEXT PRIMARY KEY,
    partitions INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE blocks (
    seq      INTEGER PRIMARY KEY,
    first_at INTEGER NOT NULL, -- ingest times it covers, µs since the Unix epoch
    last_at  INTEGER NOT NULL,
    footer   TEXT NOT NULL,    -- JSON: where each event type and partition lies in the body
    body     BLOB NOT NULL     -- Arrow IPC streams, one an event type
);

-- Ids that clients gave, for as long as a repeat is looked for.
CREATE TABLE client_ids (
    id        BLOB PRIMARY KEY,
    topic     TEXT NOT NULL,
    partition INTEGER NOT NULL,
    "offset"  INTEGER NOT NULL,
    at        INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX client_ids_by_age ON client_ids (at);
