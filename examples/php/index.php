<?php

require __DIR__ . '/guard.php';

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$headers = ['Content-Type' => 'application/json'];
try {
    if (!in_array($path, ['/whoami', '/staff', '/orders'], true)) {
        throw new WxauthRefusal(404, 'not_found');
    }
    $user = wxauth_user($_SERVER['HTTP_AUTHORIZATION'] ?? '', $path === '/staff' ? ['staff'] : []);
    if ($path === '/orders') {
        wxauth_own($user);
    }
    [$status, $body] = [200, array_intersect_key($user, array_flip(['sub', 'openid', 'app_id', 'external_id']))];
} catch (WxauthRefusal $refusal) {
    [$status, $body] = [$refusal->getCode(), $refusal->body()];
    $headers += $refusal->headers;
}
foreach ($headers as $name => $value) {
    header("$name: $value");
}
http_response_code($status); // last, because PHP sets 401 if there is a WWW-Authenticate header
echo json_encode($body);
