SELECT JSON_OBJECT(
  'app_id', 'wx1a2b3c4d5e6f7a8b',
  'openid', openid,
  'unionid', IF(unionid REGEXP '^[A-Za-z0-9_-]{24,36}$', unionid, NULL),
  'external_id', CAST(id AS CHAR),
  'nickname', IF(nick_name REGEXP '[[:cntrl:]]', NULL, SUBSTR(TRIM(nick_name), 1, 64)),
  'avatar_url', IF(avatar_url REGEXP '^https?://[^/ ]+[.][^ ]+$', REPLACE(avatar_url, 'http://', 'https://'), NULL),
  'phone', IF(phone REGEXP '^([+]?86)?1[0-9]{10}$', CONCAT('+86', SUBSTR(phone, -11)), NULL),
  'created_at', IF(create_time > '1970-01-01', DATE_FORMAT(create_time, '%Y-%m-%dT%H:%i:%s+08:00'), NULL))
FROM user WHERE openid REGEXP '^[A-Za-z0-9_-]{20,}$' ORDER BY id;
