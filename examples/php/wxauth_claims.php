<?php

use Firebase\JWT\JWK;
use Firebase\JWT\JWT;

function wxauth_claims(string $token, string $issuer, array $keys, string $audience = 'wxauth'): stdClass
{
    if (!preg_match('/^[\w-]+\.[\w-]+\.[\w-]{86}$/D', $token)) {
        throw new UnexpectedValueException('not a JWS in compact form with an ES256 signature');
    }
    JWT::$leeway = 30;
    $header = new stdClass();
    $claims = JWT::decode($token, $keys, $header);
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
    $claims->app_id ??= $claims->client_id;
    $claims->external_id ??= null;
    return $claims;
}

// Call these functions as follows:
// $keys = wxauth_keys($issuer, $token, '/var/lib/orders/wxauth-keys.json');
// $claims = wxauth_claims($token, $issuer, JWK::parseKeySet($keys, 'ES256'));
