-- One transaction as it was submitted.
SELECT
    id, merchant_id, accepted_at, livemode, amount_minor, currency, reporting_amount_minor,
    card_token, card_bin, card_last4, card_brand, card_exp_month, card_exp_year,
    customer_id, customer_email, customer_phone, device_id, device_ip, device_user_agent,
    billing_country, billing_city, billing_postal_code,
    shipping_country, shipping_city, shipping_postal_code,
    location_country, location_lat, location_lon, mcc, terminal_id, metadata, test_behaviour,
    idempotency_key, source_partition, source_offset
FROM transactions
WHERE id = {id:String}
