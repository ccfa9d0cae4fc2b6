-- How often logins of each user failed in each minute, and from how many addresses. A minute's row leaves when no more
-- logins of that minute are expected: `delay` after its end, by the logins' own times.
--
-- The inner query puts the failures into windows of a minute; the outer one takes the window apart.
SELECT
    account,
    window.start AS window_start,
    failures,
    addresses
FROM (
    SELECT
        tumble(interval '1 minute') AS window,
        account,
        count(*)           AS failures,
        count(DISTINCT ip) AS addresses
    FROM failures
    GROUP BY window, account
)
