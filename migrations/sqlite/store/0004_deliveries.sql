-- What is to be sent outside, written with its epoch and kept until long after it has arrived: the id keeps a row from
-- being sent twice.
CREATE TABLE deliveries (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    pipeline    TEXT NOT NULL,
    id          TEXT NOT NULL UNIQUE,
    sink        TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    row_time    INTEGER NOT NULL,
    event_id    TEXT,
    body        BLOB NOT NULL,
    state       TEXT NOT NULL DEFAULT 'pending', -- pending, delivered, dead
    since       INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    next_at     INTEGER NOT NULL,
    last_at     INTEGER,
    last_status INTEGER,
    last_error  TEXT,
    settled_at  INTEGER
);
CREATE INDEX deliveries_due ON deliveries (pipeline, sink, next_at) WHERE state = 'pending';
CREATE INDEX deliveries_waiting ON deliveries (pipeline, sink, number) WHERE state = 'pending';
CREATE INDEX deliveries_by_event ON deliveries (event_id) WHERE event_id IS NOT NULL;
CREATE INDEX deliveries_tried ON deliveries (pipeline, sink, last_at) WHERE last_at IS NOT NULL;
CREATE INDEX deliveries_settled ON deliveries (pipeline, settled_at) WHERE settled_at IS NOT NULL;

-- The row time of the last delivery of each dedupe key.
CREATE TABLE delivery_keys (
    pipeline TEXT NOT NULL,
    sink     TEXT NOT NULL,
    key      TEXT NOT NULL,
    row_time INTEGER NOT NULL,
    PRIMARY KEY (pipeline, sink, key)
) WITHOUT ROWID;
