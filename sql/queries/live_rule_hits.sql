-- Matches of live rules on transactions accepted since a time: reasons of the newest decisions, and the
-- page's list of rules after a restart.
SELECT transaction_id, accepted_at, rule, code, message, observed, limit_value, points
FROM rule_hits
WHERE mode = 'live' AND accepted_at >= {since:DateTime64(3)}
ORDER BY transaction_id, position
