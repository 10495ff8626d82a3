SELECT JSON_OBJECT(
  'app_id', 'wx1a2b3c4d5e6f7a8b',
  'openid', weixin_openid,
  'external_id', CAST(id AS CHAR),
  'nickname', IF(nickname REGEXP '[[:cntrl:]]', NULL, SUBSTR(TRIM(nickname), 1, 64)),
  'avatar_url', IF(avatar REGEXP '^https?://[^/ ]+[.][^ ]+$', REPLACE(avatar, 'http://', 'https://'), NULL),
  'phone', IF(mobile REGEXP '^([+]?86)?1[0-9]{10}$', CONCAT('+86', SUBSTR(mobile, -11)), NULL),
  'created_at', IF(register_time > 0, register_time, NULL),
  'last_login_at', IF(last_login_time > 0, last_login_time, NULL))
FROM nideshop_user WHERE weixin_openid REGEXP '^[A-Za-z0-9_-]{20,}$' ORDER BY id;
