<?php

use Firebase\JWT\JWK;
use Firebase\JWT\JWT;

final class WxauthInsufficientScope extends UnexpectedValueException
{
}

/**
 * Returns the claims of a token. Throws a WxauthInsufficientScope for the token of a website or an agent unless
 * $websites is true. In this case, return 403. If it throws another exception, return 401.
 */
function wxauth_claims(
    string $token,
    string $issuer,
    array $keys,
    string $audience = 'wxauth',
    bool $websites = false
): stdClass {
    if (!preg_match('/^[\w-]+\.[\w-]+\.[\w-]{86}$/D', $token)) {
        throw new UnexpectedValueException('not a JWS in compact form with an ES256 signature');
    }
    JWT::$leeway = 30;
    $header = new stdClass();
    $claims = JWT::decode($token, $keys, $header);
    if (!isset($header->alg)) { // versions of php-jwt for PHP 7.2 do not return the header
        $header = json_decode(base64_decode(strtr(strtok($token, '.'), '-_', '+/')));
    }
    $type = preg_replace('#^application/#', '', strtolower(is_string($header->typ ?? null) ? $header->typ : ''));
    if ($header->alg !== 'ES256' || $type !== 'at+jwt' || isset($header->crit)) {
        throw new UnexpectedValueException('not an access token');
    }
    foreach (['iss', 'sub', 'aud', 'exp', 'iat', 'jti', 'client_id', 'sid', 'openid'] as $name) {
        if (!isset($claims->$name)) {
            throw new UnexpectedValueException("$name is missing");
        }
    }
    if ($claims->iss !== $issuer || !in_array($audience, (array) $claims->aud, true)) {
        throw new UnexpectedValueException('iss or aud is another');
    }
    if (property_exists($claims, 'scope') && !$websites) {
        throw new WxauthInsufficientScope('the token of a website or an agent');
    }
    $claims->app_id = $claims->app_id ?? $claims->client_id;
    $claims->external_id = $claims->external_id ?? null;
    return $claims;
}

// Call these functions as follows:
// $keys = wxauth_keys($issuer, $token, '/var/lib/orders/wxauth-keys.json');
// $claims = wxauth_claims($token, $issuer, JWK::parseKeySet($keys, 'ES256'));
