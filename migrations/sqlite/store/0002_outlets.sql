-- How long each sink's outlet is, in bytes: what lies behind that belongs to no committed epoch.
CREATE TABLE outlets (
    pipeline TEXT NOT NULL,
    sink     TEXT NOT NULL,
    length   INTEGER NOT NULL,
    PRIMARY KEY (pipeline, sink)
) WITHOUT ROWID;

-- Where in its source a dead letter stood, so that the same message has one however often it is read.
ALTER TABLE dead_letters ADD COLUMN place TEXT;
CREATE UNIQUE INDEX dead_letters_by_place ON dead_letters (pipeline, source, place) WHERE place IS NOT NULL;
