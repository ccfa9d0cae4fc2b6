-- A file of its own.
SELECT aggregate_id,
       value + nothing AS sum
FROM sensor.reading
