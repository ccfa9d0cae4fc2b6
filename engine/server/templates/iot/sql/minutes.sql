-- Statistics of each device and minute. A minute's row leaves when no more readings of that minute are expected: `delay`
-- after its end, by the readings' own times.
--
-- The inner query puts the readings into windows of a minute; the outer one takes the window apart.
SELECT
    device,
    window.start AS window_start,
    window.end   AS window_end,
    readings,
    avg_celsius,
    min_celsius,
    max_celsius
FROM (
    SELECT
        tumble(interval '1 minute') AS window,
        device,
        count(*)     AS readings,
        avg(celsius) AS avg_celsius,
        min(celsius) AS min_celsius,
        max(celsius) AS max_celsius
    FROM readings
    GROUP BY window, device
)
