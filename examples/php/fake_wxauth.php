<?php

/**
 * A server for tests, which replaces wxauth. It accepts three tokens: alice is a user, carol is a member of staff, and
 * shop is a user on a website. Start it with php -S 127.0.0.1:8013 fake_wxauth.php, and start your service with
 * WXAUTH_ISSUER=http://127.0.0.1:8013.
 */
$token = $_POST['token'] ?? '';
$roles = ['alice' => [], 'carol' => ['staff'], 'shop' => []];
$user = ['active' => true, 'aud' => 'wxauth', 'sub' => '01900000-0000-7000-8000-000000000001', 'openid' => "openid-$token", 'client_id' => 'wxtest']
    + ($token === 'shop' ? ['scope' => 'openid'] : []);
header('Content-Type: application/json');
echo json_encode(isset($roles[$token]) ? $user + ['roles' => $roles[$token]] : ['active' => false]);
