<?php

namespace Wxauth;

/** Verifies tokens as RFC 8725 and RFC 9068 require. */
final class Token
{
    const MAX_LENGTH = 8192;
    const CLOCK_SKEW = 30; // seconds, for exp, iat and nbf
    const MAX_DEPTH = 64;
    const MAX_SHOWN = 200; // characters of a value in the log
    const UUID = '/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/Di';

    /**
     * @param Keys|object $keys
     * @throws Refusal
     */
    public static function verified(string $token, string $issuer, string $audience, $keys, bool $allowsScope): User
    {
        if (strlen($token) > self::MAX_LENGTH) {
            throw self::invalid('the token is too long');
        }
        if (!preg_match('/^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})$/D', $token, $parts)) {
            throw self::invalid('the token is not a JWS in compact form with an ES256 signature');
        }
        $header = self::object($parts[1]);
        $kid = self::keyId($header);
        $key = $keys->find($kid);
        if ($key === null) {
            $cause = 'its kid is ' . self::shown($kid) . ", which is no key of $issuer";
            throw self::invalid('the token names a key that is not known', $cause);
        }
        $signature = self::der(self::bytes($parts[3]));
        if (openssl_verify("$parts[1].$parts[2]", $signature, $key, OPENSSL_ALGO_SHA256) !== 1) {
            $cause = 'its signature does not fit the key ' . self::shown($kid) . " of $issuer";
            throw self::invalid('the signature does not fit', $cause);
        }
        return self::user(self::object($parts[2]), $issuer, $audience, $allowsScope);
    }

    private static function keyId(\stdClass $header): string
    {
        $type = strtolower(is_string($header->typ ?? null) ? $header->typ : '');
        if (($header->alg ?? null) !== 'ES256') {
            throw self::invalid('alg is not ES256');
        }
        if ($type !== 'at+jwt' && $type !== 'application/at+jwt') {
            throw self::invalid('typ is not at+jwt');
        }
        if (property_exists($header, 'crit')) {
            throw self::invalid('crit names an extension that is not understood');
        }
        if (!is_string($header->kid ?? null) || $header->kid === '') {
            throw self::invalid('kid is missing');
        }
        return $header->kid;
    }

    private static function user(\stdClass $claims, string $issuer, string $audience, bool $allowsScope): User
    {
        $audiences = $claims->aud ?? null;
        $audiences = is_string($audiences) ? [$audiences] : $audiences;
        if (($claims->iss ?? null) !== $issuer) {
            throw self::invalid('iss is another issuer', self::differing('iss', $claims, $issuer));
        }
        if (!self::areTexts($audiences) || !in_array($audience, $audiences, true)) {
            throw self::invalid('aud does not name this audience', self::differing('aud', $claims, $audience));
        }
        $hasScope = property_exists($claims, 'scope');
        $hasAppId = property_exists($claims, 'app_id');
        $user = new User();
        $user->claims = (array) $claims;
        $user->clientId = $claims->client_id ?? null;
        $user->openid = $claims->openid ?? null;
        $user->appId = $hasAppId ? $claims->app_id : $user->clientId; // a login in a mini-program has no app_id
        $hasDocument = is_string($user->clientId) && strpos($user->clientId, 'https://') === 0;
        if ($hasDocument && $hasScope && !$hasAppId && !property_exists($claims, 'openid')) {
            $user->openid = $user->appId = ''; // of a program that describes itself by a document
        }
        $user->externalId = property_exists($claims, 'external_id') ? $claims->external_id : '';
        if (!self::areTexts([$user->clientId, $user->openid, $user->appId, $user->externalId, $claims->jti ?? null])) {
            throw self::invalid('client_id, openid, app_id, external_id or jti is missing or not a string');
        }
        $user->externalId = property_exists($claims, 'external_id') ? $user->externalId : null;
        $user->roles = property_exists($claims, 'roles') ? $claims->roles : [];
        if (!self::areTexts($user->roles)) {
            throw self::invalid('roles is not a list of strings');
        }
        foreach (['sub', 'sid'] as $name) {
            if (!is_string($claims->$name ?? null) || !preg_match(self::UUID, $claims->$name)) {
                throw self::invalid("$name is missing or not a UUID");
            }
        }
        $user->id = strtolower($claims->sub);
        $user->sessionId = strtolower($claims->sid);
        self::checkTimes($claims);
        if ($hasScope && !$allowsScope) {
            throw new Refusal('insufficient_scope', "this service doesn't accept the tokens of websites and agents");
        }
        if ($hasScope || $hasAppId) { // a website's token, which has an app_id, must also have a scope
            if (!is_string($claims->scope ?? null)) {
                throw self::invalid('scope is missing or not a string');
            }
            $user->scope = array_values(array_filter(explode(' ', $claims->scope), 'strlen'));
        }
        return $user;
    }

    private static function checkTimes(\stdClass $claims)
    {
        foreach (['iat', 'exp', 'nbf'] as $name) {
            $isSet = property_exists($claims, $name);
            if (!$isSet && $name === 'nbf') {
                continue;
            }
            $time = $isSet ? $claims->$name : null;
            if (!is_int($time) && !(is_float($time) && is_finite($time))) {
                throw self::invalid("$name is missing or not a finite number");
            }
            $ahead = $time - microtime(true);
            if ($name !== 'exp' && $ahead > self::CLOCK_SKEW) {
                throw self::invalid("$name is in the future", sprintf("$name is %d s in the future by this machine's clock", $ahead));
            }
        }
        $age = microtime(true) - $claims->exp;
        if ($age >= self::CLOCK_SKEW) {
            $line = sprintf("a token was refused: expired %d s ago by this machine's clock", $age);
            throw (new Refusal('token_expired', 'the token has expired'))->because($line);
        }
    }

    private static function differing(string $name, \stdClass $claims, string $expected): string
    {
        return "$name is " . self::shown($claims->$name ?? null) . ", this guard expects '$expected'";
    }

    /** Returns a value for the log, shortened, and escaped because a kid is read before the signature is checked. */
    private static function shown($value): string
    {
        $text = is_string($value) ? $value : (string) json_encode($value);
        return "'" . substr(preg_replace('/[^\x20-\x7e]/', '?', $text), 0, self::MAX_SHOWN) . "'";
    }

    private static function areTexts($list): bool
    {
        return is_array($list) && $list === array_values(array_filter($list, 'is_string'));
    }

    /** Returns the JSON object in a part, which every parser reads alike. */
    private static function object(string $part): \stdClass
    {
        $text = self::bytes($part);
        $object = json_decode($text, false, self::MAX_DEPTH);
        if (!$object instanceof \stdClass || !self::isUnambiguous($text)) {
            throw self::invalid('a part of the token is not a JSON object that every parser reads alike');
        }
        return $object;
    }

    /** Returns whether no object in valid JSON has a name twice, and all numbers are finite. */
    private static function isUnambiguous(string $text): bool
    {
        $open = []; // the names of each object that has not ended yet
        preg_match_all('/("[^"\\\\]*+(?:\\\\.[^"\\\\]*+)*+")(\s*+:)?|-?\d[\d.eE+-]*+|[{}]/s', $text, $pieces, PREG_SET_ORDER);
        foreach ($pieces as $piece) {
            if ($piece[0] === '{') {
                $open[] = [];
            } elseif ($piece[0] === '}') {
                array_pop($open);
            } elseif (isset($piece[2])) {
                $name = 'n' . json_decode($piece[1]);
                if (isset($open[count($open) - 1][$name])) {
                    return false;
                }
                $open[count($open) - 1][$name] = true;
            } elseif ($piece[0][0] !== '"' && !is_finite((float) $piece[0])) {
                return false;
            }
        }
        return true;
    }

    private static function bytes(string $base64): string
    {
        $bytes = (string) base64_decode(strtr($base64, '-_', '+/'), true);
        if (rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=') !== $base64) {
            throw self::invalid('a part of the token is not base64url');
        }
        return $bytes;
    }

    /** Returns the signature as a sequence of two integers, as OpenSSL requires it (X9.62). */
    private static function der(string $signature): string
    {
        $der = '';
        foreach (str_split($signature, 32) as $half) {
            $half = ltrim($half, "\0");
            $half = $half === '' || ord($half[0]) > 127 ? "\0$half" : $half;
            $der .= "\x02" . chr(strlen($half)) . $half;
        }
        return "\x30" . chr(strlen($der)) . $der;
    }

    private static function invalid(string $detail, string $cause = ''): Refusal
    {
        $refusal = new Refusal('invalid_token', $detail);
        return $cause === '' ? $refusal : $refusal->because("a token was refused: $cause");
    }
}
