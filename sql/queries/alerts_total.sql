-- How many alerts were ever raised.
SELECT count(*) AS alerts
FROM alerts
