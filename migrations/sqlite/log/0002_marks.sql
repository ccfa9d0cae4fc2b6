-- Where each source stands behind the events that are stored: written in one commit with them.
CREATE TABLE marks (
    source   TEXT PRIMARY KEY,
    position TEXT NOT NULL
) WITHOUT ROWID;
