-- These are the statements of claim.sql for MySQL 5.7 or newer, and for MariaDB. Run them in this order, and stop when a
-- SELECT finds a row. Each statement must commit by itself. PDO rejects a parameter that a statement contains twice
-- (HY093), so give the second one another name.
--
--   :id           the token's user
--   :external_id  the token's external_id as a number, or null if it has other characters than digits
--   :openid       the token's openid if app_id is your app, otherwise null
--   :phone        the phone of GET /v1/me in the format of your table if phone_verified is true, otherwise null

-- Run this statement once, when you set up the table. If one table has the users of several merchants, the unique key is
-- (merchant_id, wxauth_id), and each statement also contains the merchant.
ALTER TABLE customers ADD wxauth_id char(36) CHARACTER SET ascii COLLATE ascii_bin NULL UNIQUE;

-- The user has a row.
SELECT id FROM customers WHERE wxauth_id = :id;

-- The user was imported, so this statement assigns the imported row to them. If your keys are text, add the condition
-- `AND BINARY id = :external_id`, because MySQL considers 'aB3' equal to 'Ab3'.
UPDATE IGNORE customers SET wxauth_id = :id WHERE id = :external_id AND wxauth_id IS NULL;

-- The user has used your app before, but was not imported. Create an index on openid.
UPDATE IGNORE customers SET wxauth_id = :id
 WHERE openid = :openid AND BINARY openid = BINARY :openid AND openid <> '' AND wxauth_id IS NULL ORDER BY id LIMIT 1;

-- Run this statement only in a login that finds accounts by a phone number.
UPDATE IGNORE customers SET wxauth_id = :id
 WHERE wxauth_id IS NULL
   AND id = (SELECT id FROM (SELECT min(id) AS id FROM customers WHERE phone = :phone HAVING count(*) = 1) AS known);

-- Run this statement only if the openid column is unique. The row of a previous user, who was erased or merged, might
-- still contain this openid. The column must allow null.
UPDATE customers SET openid = NULL WHERE openid = :openid AND wxauth_id <> :id;

-- The user is new. If another request has just inserted the row, this statement changes nothing. The gaps that it leaves
-- in an AUTO_INCREMENT column are harmless. If the openid column is unique, insert null instead of ''.
INSERT IGNORE INTO customers (wxauth_id, openid) VALUES (:id, COALESCE(:openid, ''));

-- Now the row exists. If this statement finds no row, return an error. Never treat the caller as a guest.
SELECT id FROM customers WHERE wxauth_id = :id;

-- Run the following statement at each login, however the row was found, because payments need the openid.
UPDATE customers SET openid = :openid WHERE wxauth_id = :id AND :openid IS NOT NULL AND NOT (openid <=> :openid);
