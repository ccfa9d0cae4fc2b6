-- How many events of each type were ever stored, counted in the commits themselves, and how many retention has deleted.
CREATE TABLE accepted (
    event_type TEXT PRIMARY KEY,
    rows       INTEGER NOT NULL,
    forgotten  INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

INSERT INTO accepted (event_type, rows)
SELECT type.value ->> 'event_type', sum(span.value ->> 'rows')
FROM blocks, json_each(blocks.footer, '$.types') AS type, json_each(type.value, '$.spans') AS span
GROUP BY 1;

-- Where each partition begins, once retention has deleted its oldest events.
CREATE TABLE begins (
    topic     TEXT NOT NULL,
    partition INTEGER NOT NULL,
    "offset"  INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
