<?php

/**
 * The keys of wxauth, for this token; null if there are none. All processes of PHP share them in $file, in a folder that they alone can write.
 * One process reads them, no other waits for it; keys are used for a day while wxauth is away.
 */
function wxauth_keys(string $issuer, string $token, string $file): ?array
{
    $header = json_decode(base64_decode(strtr(strtok($token, '.') ?: '', '-_', '+/')) ?: '', true);
    $kid = is_string($header['kid'] ?? null) ? $header['kid'] : '';
    $kept = wxauth_kept_keys($file);
    if (time() - $kept['read_at'] > 300 || !isset($kept['keys'][$kid])) {
        $lock = fopen("$file.lock", 'c+');
        if (flock($lock, LOCK_EX | LOCK_NB)) {
            wxauth_read_keys($issuer, $file, $lock);
            $kept = wxauth_kept_keys($file);
        }
        fclose($lock);
    }
    return time() - $kept['read_at'] > 86400 ? null : ['keys' => array_values($kept['keys'])];
}

function wxauth_kept_keys(string $file): array
{
    return json_decode(@file_get_contents($file) ?: '', true) ?? ['keys' => [], 'read_at' => 0];
}

/** Reads the keys, not more often than every ten seconds, and after failures every minute. */
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
    if (is_array($published)) {
        $keys = array_filter($published, fn ($key) => ($key['kty'] ?? '') === 'EC' && is_string($key['kid'] ?? null));
        $kept = json_encode(['keys' => array_column($keys, null, 'kid'), 'read_at' => time()]);
        file_put_contents("$file.new", $kept);
        rename("$file.new", $file);
        $failures = -1;
    } else {
        error_log('wxauth: ' . (error_get_last()['message'] ?? $http_response_header[0] ?? 'the keys could not be read'));
    }
    rewind($lock);
    ftruncate($lock, 0);
    fwrite($lock, (time() + min(10 * 2 ** max($failures, 0), 60)) . ' ' . min($failures + 1, 3));
}
