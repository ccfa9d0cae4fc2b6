-- Events that could not be computed, and are left out by whoever computes the pipeline again.
CREATE TABLE set_aside (
    pipeline   TEXT NOT NULL,
    event_type TEXT NOT NULL,
    partition  INTEGER NOT NULL,
    log_offset INTEGER NOT NULL,
    PRIMARY KEY (pipeline, event_type, partition, log_offset)
) WITHOUT ROWID;
