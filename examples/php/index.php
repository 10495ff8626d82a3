<?php

use Wxauth\Guard;
use Wxauth\Refusal;

require __DIR__ . '/vendor/autoload.php';

$guard = new Guard([
    'issuer' => getenv('WXAUTH_ISSUER') ?: 'http://127.0.0.1:8000',
    'audience' => getenv('WXAUTH_AUDIENCE') ?: 'wxauth',
    'keys_dir' => getenv('WXAUTH_KEYS_DIR') ?: '',
]);
$authorization = $_SERVER['HTTP_AUTHORIZATION'] ?? '';
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
try {
    if ($path === '/whoami' || $path === '/orders') {
        $user = $guard->user($authorization);
    } elseif ($path === '/staff') {
        $user = $guard->user($authorization, 'staff');
    } elseif ($path === '/refund') {
        $user = $guard->current()->user($authorization, 'clerk');
    } else {
        http_response_code(404);
        exit;
    }
} catch (Refusal $refusal) {
    $refusal->send();
    exit;
}
header('Content-Type: application/json');
echo json_encode(['sub' => $user->id, 'openid' => $user->openid, 'app_id' => $user->appId, 'external_id' => $user->externalId]);
