-- This file is for yudao (RuoYi-Vue-Pro) on MySQL 5.7 or newer, or MariaDB, with both of its branches (Spring Boot 2 and
-- 3). Replace the two AppIDs. The first is your mini-program's, and the second is your official account's. yudao stores
-- them in system_social_client (client_id), or in application.yaml. If your tenants have their own mini-programs, write
-- one file for each tenant_id. Write the file with: mysql --raw --batch --skip-column-names

SELECT JSON_OBJECT(
  'app_id', IF(social.type = 34, 'wx1a2b3c4d5e6f7a8b', 'wx5d6e7f8a9b0c1d2e'),
  'openid', social.openid,
  'unionid', IF(JSON_VALID(social.raw_token_info)
    AND JSON_UNQUOTE(JSON_EXTRACT(social.raw_token_info, '$.unionId')) REGEXP '^[A-Za-z0-9_-]{24,36}$',
    JSON_UNQUOTE(JSON_EXTRACT(social.raw_token_info, '$.unionId')), NULL),
  'external_id', CAST(member.id AS CHAR),
  'nickname', IF(member.nickname REGEXP '[[:cntrl:]]', NULL, NULLIF(SUBSTR(TRIM(member.nickname), 1, 64), '')),
  'avatar_url', IF(member.avatar REGEXP '^https?://[^/ ]+[.][^ ]+$', REPLACE(member.avatar, 'http://', 'https://'), NULL),
  'phone', IF(member.mobile REGEXP '^1[0-9]{10}$', CONCAT('+86', member.mobile), NULL),
  'status', IF(member.status = 1, 'disabled', 'active'),
  'created_at', DATE_FORMAT(member.create_time, '%Y-%m-%dT%H:%i:%s+08:00'),
  'last_login_at', DATE_FORMAT(member.login_date, '%Y-%m-%dT%H:%i:%s+08:00'))
FROM system_social_user AS social
JOIN system_social_user_bind AS bound ON bound.social_user_id = social.id AND bound.user_type = 1 AND bound.deleted = 0
JOIN member_user AS member ON member.id = bound.user_id AND member.deleted = 0
WHERE social.type IN (31, 34) AND social.deleted = 0 AND member.tenant_id = 1
  AND social.openid REGEXP '^[A-Za-z0-9_-]{20,}$'
ORDER BY member.id, social.type DESC;

-- Run this statement once, when you set up the table.
ALTER TABLE member_user
  ADD wxauth_id char(36) CHARACTER SET ascii COLLATE ascii_bin NULL, ADD UNIQUE KEY uk_wxauth (tenant_id, wxauth_id);

-- Every route runs this statement alone. If it finds no row, the route returns 403.
--
--   :tenant_id    the tenant whose mini-program has the token's app_id
--   :id           the token's user
SELECT id FROM member_user WHERE tenant_id = :tenant_id AND wxauth_id = :id AND deleted = 0;

-- The login route runs the following statements in this order, and stops as soon as the statement above finds a row.
--
--   :external_id  the token's external_id as a number, or null
--   :openid       the token's openid
--   :mobile       the phone of GET /v1/me without +86 if phone_verified is true, otherwise null

-- yudao doesn't delete rows, so a deleted member might still own this ID.
UPDATE member_user SET wxauth_id = NULL WHERE tenant_id = :tenant_id AND wxauth_id = :id AND deleted = 1;

-- The member was imported.
UPDATE IGNORE member_user SET wxauth_id = :id
 WHERE tenant_id = :tenant_id AND id = :external_id AND wxauth_id IS NULL AND deleted = 0;

-- The member has used the mini-program before, but was not imported. MySQL would compare openids without regard to case.
UPDATE IGNORE member_user SET wxauth_id = :id
 WHERE tenant_id = :tenant_id AND wxauth_id IS NULL AND deleted = 0 AND id = (
   SELECT min(bound.user_id) FROM system_social_user AS social
     JOIN system_social_user_bind AS bound
       ON bound.social_user_id = social.id AND bound.user_type = 1 AND bound.deleted = 0
    WHERE social.type = 34 AND social.deleted = 0 AND social.tenant_id = :tenant_id
      AND social.openid = :openid AND BINARY social.openid = BINARY :openid);

-- The member has logged in with this number before.
UPDATE IGNORE member_user SET wxauth_id = :id
 WHERE tenant_id = :tenant_id AND wxauth_id IS NULL AND deleted = 0 AND id = (
   SELECT id FROM (
     SELECT min(id) AS id FROM member_user
      WHERE tenant_id = :tenant_id AND mobile = :mobile AND deleted = 0 HAVING count(*) = 1) AS known);

-- Somebody else has this number, or two members have it. If this statement finds a row, stop, and return 409, so that your
-- staff decides. yudao's login by SMS fails for a number with two rows.
SELECT id AS other FROM member_user
 WHERE tenant_id = :tenant_id AND mobile = :mobile AND deleted = 0 AND NOT (wxauth_id <=> :id);

-- The member is new. If another request has just inserted the row, this statement changes nothing.
INSERT IGNORE INTO member_user (tenant_id, wxauth_id, mobile, status, register_ip, nickname)
VALUES (:tenant_id, :id, :mobile, 0, '', '');
