-- The row of a verified token in a table with its own keys, in PostgreSQL. Each statement commits by itself.
-- :id is the token's user; :external_id its external_id as a number, or null; :openid its openid if app_id is your app, else null.

-- once
ALTER TABLE customers ADD wxauth_id uuid UNIQUE;

-- known
SELECT id FROM customers WHERE wxauth_id = :id;

-- imported: the row is claimed
UPDATE customers SET wxauth_id = :id WHERE id = :external_id AND wxauth_id IS NULL;

-- in your app before, not imported
UPDATE customers SET wxauth_id = :id
 WHERE id = (SELECT min(id) FROM customers WHERE openid = :openid AND openid <> '' AND wxauth_id IS NULL)
   AND wxauth_id IS NULL AND NOT EXISTS (SELECT FROM customers WHERE wxauth_id = :id);

-- only in a login that finds accounts by a number: :phone is that of GET /v1/me as your table writes it, if phone_verified, else null
UPDATE customers SET wxauth_id = :id
 WHERE id = (SELECT min(id) FROM customers WHERE phone = :phone HAVING count(*) = 1)
   AND wxauth_id IS NULL AND NOT EXISTS (SELECT FROM customers WHERE wxauth_id = :id);

-- only if the openid is unique: it may still stand with an earlier user of this person, who was erased or merged
UPDATE customers SET openid = NULL WHERE openid = :openid AND wxauth_id <> :id;

-- new, unless another request has just made it (a column that is unique takes null in place of '')
-- A user name that is required: a prefix and the last 12 characters of the id. Its first are the time, which two may share.
INSERT INTO customers (wxauth_id, openid) VALUES (:id, COALESCE(:openid, '')) ON CONFLICT DO NOTHING;

-- then it is there: no row is an error, never a guest
SELECT id FROM customers WHERE wxauth_id = :id;
