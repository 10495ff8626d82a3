-- Run: psql shop --file postgresql.sql
-- Then run: wxauth users import users.csv --dry-run
CREATE TEMPORARY VIEW exported AS
SELECT 'wx1a2b3c4d5e6f7a8b' AS app_id,
       openid,
       CASE WHEN unionid ~ '^[A-Za-z0-9_-]{24,36}$' THEN unionid END AS unionid,
       id::text AS external_id,
       CASE WHEN nick_name !~ '[[:cntrl:]]' THEN left(trim(nick_name), 64) END AS nickname,
       CASE WHEN avatar_url ~ '^https?://[^/ ]+[.][^ ]+$' THEN replace(avatar_url, 'http://', 'https://') END AS avatar_url,
       CASE WHEN phone ~ '^([+]?86)?1[0-9]{10}$' THEN '+86' || right(phone, 11) END AS phone,
       to_char(create_time, 'YYYY-MM-DD"T"HH24:MI:SS"+08:00"') AS created_at
  FROM customers WHERE openid ~ '^[A-Za-z0-9_-]{20,}$' ORDER BY id;
\copy (SELECT * FROM exported) TO 'users.csv' CSV HEADER
