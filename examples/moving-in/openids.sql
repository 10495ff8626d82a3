-- These statements find or insert the row of a verified token, in a table `customers` whose openids are in another table
-- `customer_openids` (user_id, app_id, openid), where openid is unique and not null. Run them in MySQL in this order. In
-- PostgreSQL, write `INSERT … ON CONFLICT DO NOTHING` instead of `INSERT IGNORE`. Each statement must commit by itself.
--
--   :id           the token's user
--   :external_id  the token's external_id as a number, or null
--   :app_id       the token's app_id, which must be your app
--   :openid       the token's openid
--
-- MySQL refuses a subquery on the table that a statement updates (error 1093), except in a derived table that it cannot
-- merge, hence DISTINCT. In MySQL, give the openid column the collation utf8mb4_bin, because openids differ in case.

-- The user was imported, so this statement assigns the imported row to them.
UPDATE customers SET wxauth_id = :id
 WHERE id = :external_id AND wxauth_id IS NULL
   AND NOT EXISTS (SELECT 1 FROM (SELECT DISTINCT id FROM customers WHERE wxauth_id = :id) AS claimed);

-- The user has used your app before, but was not imported.
UPDATE customers SET wxauth_id = :id
 WHERE id = (SELECT user_id FROM customer_openids WHERE openid = :openid AND app_id = :app_id) AND wxauth_id IS NULL
   AND NOT EXISTS (SELECT 1 FROM (SELECT DISTINCT id FROM customers WHERE wxauth_id = :id) AS claimed);

-- The user is new. If another request has just inserted the row, this statement changes nothing.
INSERT IGNORE INTO customers (wxauth_id) VALUES (:id);

-- The row of a previous user, who was erased or merged, might still own this openid. The column is not null, so the row
-- is deleted. A verified token contains the openid, so it belongs to the new user.
DELETE FROM customer_openids
 WHERE openid = :openid AND user_id <> (SELECT id FROM customers WHERE wxauth_id = :id);

-- The user has another openid of this app, for example because the app has moved to another company.
DELETE FROM customer_openids
 WHERE app_id = :app_id AND openid <> :openid AND user_id = (SELECT id FROM customers WHERE wxauth_id = :id);

-- Payments need the openid of this app. An imported user might only have the openid of your official account.
INSERT IGNORE INTO customer_openids (user_id, app_id, openid)
SELECT id, :app_id, :openid FROM customers WHERE wxauth_id = :id;

-- Now the row exists. If this statement finds no row, return an error. Never treat the caller as a guest.
SELECT id FROM customers WHERE wxauth_id = :id;
