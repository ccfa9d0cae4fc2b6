-- Until which row time a key keeps others away: a key that is long past is forgotten.
ALTER TABLE delivery_keys ADD COLUMN until INTEGER NOT NULL DEFAULT 9223372036854775807;
CREATE INDEX delivery_keys_past ON delivery_keys (pipeline, sink, until);
