-- Dead letters of every kind: which version of the pipeline made them, what is known beside the bytes, and what became of them.
ALTER TABLE dead_letters ADD COLUMN placed INTEGER NOT NULL DEFAULT 0; -- 1: one letter a place
ALTER TABLE dead_letters ADD COLUMN variables TEXT NOT NULL DEFAULT '{}'; -- JSON
ALTER TABLE dead_letters ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN state TEXT NOT NULL DEFAULT 'open';
ALTER TABLE dead_letters ADD COLUMN settled_at INTEGER;
UPDATE dead_letters SET placed = 1 WHERE place IS NOT NULL;
DROP INDEX dead_letters_by_place;
CREATE UNIQUE INDEX dead_letters_by_place ON dead_letters (pipeline, source, place) WHERE placed = 1;
CREATE INDEX dead_letters_by_event ON dead_letters (pipeline, event_id) WHERE event_id IS NOT NULL;
