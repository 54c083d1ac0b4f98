-- What one transaction turned out to be, latest label first.
SELECT labelled_at, verdict, source, note
FROM labels
WHERE transaction_id = {id:String}
ORDER BY labelled_at DESC, source, verdict
