-- The rules one transaction matched, live ones first, most points first.
SELECT mode, code, rule, message, observed, limit_value, points
FROM rule_hits
WHERE transaction_id = {id:String}
ORDER BY mode, position
