-- These statements find or insert the row of a verified token, in a PostgreSQL table with its own keys. Run them in
-- this order, and stop when a SELECT finds a row. Each statement must commit by itself.
--
--   :id           the token's user
--   :external_id  the token's external_id as a number, or null
--   :openid       the token's openid if app_id is your app, otherwise null
--   :phone        the phone of GET /v1/me in the format of your table if phone_verified is true, otherwise null

-- Run this statement once, when you set up the table.
ALTER TABLE customers ADD wxauth_id uuid UNIQUE;

-- The user has a row.
SELECT id FROM customers WHERE wxauth_id = :id;

-- The user was imported, so this statement assigns the imported row to them.
UPDATE customers SET wxauth_id = :id WHERE id = :external_id AND wxauth_id IS NULL;

-- The user has used your app before, but was not imported.
UPDATE customers SET wxauth_id = :id
 WHERE id = (SELECT min(id) FROM customers WHERE openid = :openid AND openid <> '' AND wxauth_id IS NULL)
   AND wxauth_id IS NULL AND NOT EXISTS (SELECT FROM customers WHERE wxauth_id = :id);

-- Run this statement only in a login that finds accounts by a phone number.
UPDATE customers SET wxauth_id = :id
 WHERE id = (SELECT min(id) FROM customers WHERE phone = :phone HAVING count(*) = 1)
   AND wxauth_id IS NULL AND NOT EXISTS (SELECT FROM customers WHERE wxauth_id = :id);

-- Run this statement only if the openid column is unique. The row of a previous user, who was erased or merged, might
-- still contain this openid.
UPDATE customers SET openid = NULL WHERE openid = :openid AND wxauth_id <> :id;

-- The user is new. If another request has just inserted the row, this statement changes nothing. If the openid column
-- is unique, insert null instead of ''. If your table requires a user name, use a prefix and the last 12 characters of
-- the id. Do not use the first characters of the id, because they contain the time, so several ids can share them.
INSERT INTO customers (wxauth_id, openid) VALUES (:id, COALESCE(:openid, '')) ON CONFLICT DO NOTHING;

-- Now the row exists. If this statement finds no row, return an error. Never treat the caller as a guest.
SELECT id FROM customers WHERE wxauth_id = :id;

-- Run the following statements at each login, however the row was found. Payments need the openid, and a row that was
-- found by external_id might not contain it, or contain the openid of another app.

-- Run this statement only if the openid column is unique.
UPDATE customers SET openid = NULL WHERE openid = :openid AND wxauth_id IS DISTINCT FROM :id;

-- The row has no openid, or another.
UPDATE customers SET openid = :openid WHERE wxauth_id = :id AND :openid IS NOT NULL AND openid IS DISTINCT FROM :openid;
