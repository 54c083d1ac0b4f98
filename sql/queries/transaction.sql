-- One transaction as it was submitted.
SELECT *
FROM transactions
WHERE id = {id:String}
