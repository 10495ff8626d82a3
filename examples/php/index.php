<?php

require __DIR__ . '/guard.php';

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
try {
    if (!in_array($path, ['/whoami', '/staff', '/orders'], true)) {
        throw new WxauthRefusal(404, 'not_found');
    }
    $user = wxauth_user($_SERVER['HTTP_AUTHORIZATION'] ?? '', $path === '/staff' ? ['staff'] : []);
} catch (WxauthRefusal $refusal) {
    $refusal->send();
    exit;
}
header('Content-Type: application/json');
echo json_encode(array_intersect_key($user, array_flip(['sub', 'openid', 'app_id', 'external_id'])));
