-- Statistics of each device and minute, in degrees Celsius. Devices may report in either unit.
--
-- The inner query brings readings into one form, the middle one puts them into windows of a minute, and the outer one
-- takes the window apart. A minute's row leaves when no more readings of that minute are expected (`watermark` in the
-- pipeline file).
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
    FROM (
        SELECT
            aggregate_id AS device,
            CASE unit WHEN 'fahrenheit' THEN (value - 32) * 5 / 9 ELSE value END AS celsius
        FROM sensor.reading
    )
    GROUP BY window, device
)
