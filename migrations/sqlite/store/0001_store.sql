-- What a pipeline keeps beside the log. Projections have a table each, made when they are prepared.
CREATE TABLE pipelines (
    name  TEXT PRIMARY KEY,
    state TEXT NOT NULL -- JSON
) WITHOUT ROWID;

CREATE TABLE epochs (
    pipeline TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    record   TEXT NOT NULL, -- JSON
    PRIMARY KEY (pipeline, epoch)
) WITHOUT ROWID;

-- Raises outlive their epochs' records: a rebuild needs them all.
CREATE TABLE raises (
    pipeline  TEXT NOT NULL,
    epoch     INTEGER NOT NULL,
    positions TEXT NOT NULL,
    raises    TEXT NOT NULL,
    PRIMARY KEY (pipeline, epoch)
) WITHOUT ROWID;

CREATE TABLE snapshots (
    pipeline TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    snapshot TEXT NOT NULL,
    PRIMARY KEY (pipeline, epoch)
) WITHOUT ROWID;

CREATE TABLE parts (
    pipeline TEXT NOT NULL,
    id       INTEGER NOT NULL,
    rows     BLOB NOT NULL, -- Arrow IPC
    PRIMARY KEY (pipeline, id)
);

CREATE TABLE projections (
    name     TEXT PRIMARY KEY,
    pipeline TEXT NOT NULL,
    layout   TEXT NOT NULL -- JSON: columns with their Arrow types, and the key
) WITHOUT ROWID;

CREATE TABLE dead_letters (
    id          INTEGER PRIMARY KEY,
    pipeline    TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    reason      TEXT NOT NULL,
    source      TEXT NOT NULL,
    message     TEXT NOT NULL,
    event_id    TEXT,
    event_time  INTEGER,
    body        BLOB NOT NULL
);

CREATE TABLE counters (
    pipeline TEXT NOT NULL,
    node     TEXT NOT NULL,
    what     TEXT NOT NULL,
    value    INTEGER NOT NULL,
    PRIMARY KEY (pipeline, node, what)
) WITHOUT ROWID;
