<?php

/**
 * Returns the keys of wxauth for this token. Returns null if there are no keys, or if the token's key is unknown while
 * another process reads the keys. All PHP processes share the keys in $file. Choose a folder that only these processes
 * can write to. One process reads the keys, and the others do not wait for it. While wxauth is unavailable, the keys
 * are used for up to a day.
 */
function wxauth_keys(string $issuer, string $token, string $file): ?array
{
    $header = json_decode(base64_decode(strtr(strtok($token, '.') ?: '', '-_', '+/')) ?: '', true);
    $kid = is_string($header['kid'] ?? null) ? $header['kid'] : '';
    $kept = wxauth_kept_keys($file);
    if (time() - $kept['read_at'] > 300 || !isset($kept['keys'][$kid])) {
        $lock = fopen("$file.lock", 'c+');
        $isMine = flock($lock, LOCK_EX | LOCK_NB);
        if ($isMine) {
            wxauth_read_keys($issuer, $file, $lock);
        }
        fclose($lock);
        $kept = wxauth_kept_keys($file);
        if (!$isMine && !isset($kept['keys'][$kid])) {
            return null;
        }
    }
    return time() - $kept['read_at'] > 86400 ? null : ['keys' => array_values($kept['keys'])];
}

function wxauth_kept_keys(string $file): array
{
    return json_decode(@file_get_contents($file) ?: '', true) ?? ['keys' => [], 'read_at' => 0];
}

/** Reads the keys at most every ten seconds. After several failures, reads them only once a minute. */
function wxauth_read_keys(string $issuer, string $file, $lock): void
{
    [$next, $failures] = sscanf(stream_get_contents($lock) ?: '0 0', '%d %d');
    if (time() < $next) {
        return;
    }
    $http = ['timeout' => 2, 'follow_location' => 0];
    $url = "$issuer/.well-known/jwks.json";
    $answer = @file_get_contents($url, false, stream_context_create(['http' => $http]), 0, 256 * 1024);
    $published = json_decode($answer ?: '', true)['keys'] ?? null;
    $keys = array_filter(is_array($published) && array_is_list($published) ? $published : [], 'wxauth_is_usable');
    // A response without keys counts as a failure, because it might come from a gateway during maintenance.
    if ($keys) {
        $kept = json_encode(['keys' => array_column($keys, null, 'kid'), 'read_at' => time()]);
        file_put_contents("$file.new", $kept);
        rename("$file.new", $file);
        $failures = -1;
    } else {
        $cause = is_string($answer) ? 'there is no usable key' : error_get_last()['message'] ?? 'no answer';
        error_log("wxauth: the keys could not be read: $cause");
    }
    rewind($lock);
    ftruncate($lock, 0);
    fwrite($lock, (time() + min(10 * 2 ** max($failures, 0), 60)) . ' ' . min($failures + 1, 3));
}

/**
 * Returns whether this is a key for ES256 that php-jwt can read, with a point on the curve. If php-jwt cannot read one
 * key, it refuses all keys.
 */
function wxauth_is_usable(mixed $key): bool
{
    $key = (is_array($key) ? $key : []) + ['kty' => '', 'crv' => '', 'kid' => '', 'use' => 'sig', 'alg' => 'ES256', 'x' => '', 'y' => ''];
    $isForES256 = [$key['kty'], $key['crv'], $key['use'], $key['alg']] === ['EC', 'P-256', 'sig', 'ES256'];
    if (!$isForES256 || !is_string($key['kid']) || $key['kid'] === '') {
        return false;
    }
    $der = hex2bin('3059301306072a8648ce3d020106082a8648ce3d03010703420004'); // the prefix in DER (RFC 5480)
    foreach ([$key['x'], $key['y']] as $coordinate) {
        if (!is_string($coordinate) || !preg_match('/^[\w-]{43}$/D', $coordinate)) {
            return false;
        }
        $der .= base64_decode(strtr($coordinate, '-_', '+/'));
    }
    return openssl_pkey_get_public("-----BEGIN PUBLIC KEY-----\n" . base64_encode($der) . "\n-----END PUBLIC KEY-----") !== false;
}
