<?php

const WXAUTH_FRESH_FOR = 300; // seconds. wxauth publishes a key 360 seconds before it signs with this key.
const WXAUTH_KEPT_FOR = 86400; // seconds
const WXAUTH_TIME_LIMIT = 2; // seconds, for a whole request to wxauth
const WXAUTH_LARGEST = 262144; // bytes
const WXAUTH_UNREACHABLE = 0;
const WXAUTH_FAILED = -1;

/**
 * Returns the keys of wxauth for this token. Returns null if there are no keys, or if the token's key is unknown and
 * the keys are older than five minutes. All PHP processes share the keys in $file. Choose a folder that only these
 * processes can write to. One process reads the keys, and the others do not wait for it. While wxauth is unavailable,
 * the keys are used for up to a day.
 */
function wxauth_keys(string $issuer, string $token, string $file)
{
    $header = json_decode(base64_decode(strtr(strtok($token, '.') ?: '', '-_', '+/')) ?: '', true);
    $kid = is_string($header['kid'] ?? null) ? $header['kid'] : '';
    $kept = wxauth_kept_keys($file);
    wxauth_refresh_keys($issuer, $file, isset($kept['keys'][$kid]) ? WXAUTH_FRESH_FOR : PHP_INT_MIN);
    $kept = wxauth_kept_keys($file);
    $longest = isset($kept['keys'][$kid]) ? WXAUTH_KEPT_FOR : WXAUTH_FRESH_FOR;
    return time() - $kept['read_at'] > $longest ? null : ['keys' => array_values($kept['keys'])];
}

function wxauth_kept_keys(string $file): array
{
    $kept = json_decode(@file_get_contents($file) ?: '', true);
    $isWhole = is_array($kept['keys'] ?? null) && is_int($kept['read_at'] ?? null);
    // If the clock was set back, nobody knows how old the keys are.
    return $isWhole && $kept['read_at'] <= time() + 60 ? $kept : ['keys' => [], 'read_at' => 0];
}

/** Reads the keys if the keys in $file are older than this, and no other process is reading them. */
function wxauth_refresh_keys(string $issuer, string $file, int $seconds = WXAUTH_FRESH_FOR)
{
    if (time() - wxauth_kept_keys($file)['read_at'] <= $seconds) {
        return;
    }
    $lock = @fopen("$file.lock", 'c+');
    if ($lock && flock($lock, LOCK_EX | LOCK_NB)) {
        wxauth_read_keys($issuer, $file, $lock);
    }
    $lock && fclose($lock);
}

/** Reads the keys at most every ten seconds. After several failures, reads them only once a minute. */
function wxauth_read_keys(string $issuer, string $file, $lock)
{
    list($next, $failures) = sscanf(stream_get_contents($lock) ?: '0 0', '%d %d');
    if (time() < $next && $next <= time() + 60) {
        return;
    }
    list($status, $answer) = wxauth_request('GET', "$issuer/.well-known/jwks.json");
    $published = $status === 200 ? json_decode($answer, true)['keys'] ?? null : null;
    $isList = is_array($published) && $published === array_values($published);
    $keys = array_filter($isList ? $published : [], 'wxauth_is_usable');
    // A response without keys counts as a failure, because it might come from a gateway during maintenance.
    if ($keys && wxauth_keep($file, ['keys' => array_column($keys, null, 'kid'), 'read_at' => time()])) {
        $failures = -1;
    } elseif (!$keys) {
        $cause = $status > 0 ? "there is no usable key in the response with status $status" : $answer;
        error_log("wxauth: the keys could not be read: $cause");
    }
    rewind($lock);
    ftruncate($lock, 0);
    fwrite($lock, (time() + min(10 * 2 ** max($failures, 0), 60)) . ' ' . min($failures + 1, 3));
}

function wxauth_keep(string $file, array $keys): bool
{
    $json = json_encode($keys);
    $new = tempnam(dirname($file), 'new'); // tempnam sets the mode 0600
    if ($new && file_put_contents($new, $json) === strlen($json) && rename($new, $file)) {
        return true;
    }
    $new && @unlink($new);
    error_log("wxauth: the keys could not be written to $file");
    return false;
}

/**
 * Returns whether this is a key for ES256 that php-jwt can read, with a point on the curve. If php-jwt cannot read one
 * key, it refuses all keys.
 */
function wxauth_is_usable($key): bool
{
    $key = (is_array($key) ? $key : []) + ['kty' => '', 'crv' => '', 'kid' => '', 'use' => 'sig', 'alg' => 'ES256', 'x' => '', 'y' => ''];
    $isForES256 = [$key['kty'], $key['crv'], $key['use'], $key['alg']] === ['EC', 'P-256', 'sig', 'ES256'];
    if (!$isForES256 || !is_string($key['kid']) || $key['kid'] === '') {
        return false;
    }
    foreach ([$key['x'], $key['y']] as $coordinate) {
        if (!is_string($coordinate) || !preg_match('/^[\w-]{43}$/D', $coordinate)) {
            return false;
        }
    }
    return openssl_pkey_get_public(wxauth_pem($key)) !== false;
}

function wxauth_pem(array $key): string
{
    $der = hex2bin('3059301306072a8648ce3d020106082a8648ce3d03010703420004'); // the prefix in DER (RFC 5480)
    foreach ([$key['x'], $key['y']] as $coordinate) {
        $der .= base64_decode(strtr($coordinate, '-_', '+/'));
    }
    return "-----BEGIN PUBLIC KEY-----\n" . base64_encode($der) . "\n-----END PUBLIC KEY-----";
}

/**
 * Returns the status and the body of a response, or WXAUTH_UNREACHABLE or WXAUTH_FAILED and the reason. It follows no
 * redirect. PHP's own HTTP functions limit only the time between two reads, and don't tell a wrong certificate from a
 * server that is away.
 */
function wxauth_request(string $method, string $url, array $headers = [], string $content = ''): array
{
    $deadline = microtime(true) + WXAUTH_TIME_LIMIT;
    $reason = 'no answer';
    // Errors become the reason. Frameworks would throw them.
    set_error_handler(function ($level, $said) use (&$reason) {
        $reason = $said;
        return true;
    });
    try {
        $url = parse_url($url) + ['path' => '/'];
        $isTls = ($url['scheme'] ?? '') === 'https';
        $port = $url['port'] ?? ($isTls ? 443 : 80);
        $name = trim($url['host'] ?? '', '[]');
        $tls = stream_context_create(['ssl' => ['peer_name' => $name, 'verify_peer' => true, 'verify_peer_name' => true]]);
        $address = 'tcp://' . ($url['host'] ?? '') . ":$port";
        $stream = stream_socket_client($address, $number, $reason, WXAUTH_TIME_LIMIT, STREAM_CLIENT_CONNECT, $tls);
        if (!$stream) {
            // The last four are limits of this machine: ENOMEM, ENFILE, EMFILE, ENOBUFS.
            return [in_array($number, [12, 23, 24, 105], true) ? WXAUTH_FAILED : WXAUTH_UNREACHABLE, $reason];
        }
        stream_set_blocking($stream, false);
        if ($isTls) {
            $fault = wxauth_encrypt($stream, $deadline, $reason);
            if ($fault !== null) {
                return [$fault, $reason];
            }
        }
        $headers[] = "Host: $url[host]" . (isset($url['port']) ? ":$url[port]" : '');
        $headers[] = 'Content-Length: ' . strlen($content);
        $headers[] = 'Connection: close';
        $path = $url['path'] . (isset($url['query']) ? "?$url[query]" : '');
        $request = "$method $path HTTP/1.1\r\n" . implode("\r\n", $headers) . "\r\n\r\n$content";
        while ($request !== '' && microtime(true) < $deadline) {
            $sent = fwrite($stream, $request);
            if ($sent === false || feof($stream)) {
                break; // a response may have been sent nevertheless
            }
            $request = (string) substr($request, $sent);
            $request === '' || wxauth_wait($stream, $deadline, true);
        }
        $answer = '';
        while (strlen($answer) <= WXAUTH_LARGEST) {
            $piece = (string) fread($stream, 65536);
            $answer .= $piece;
            $isEnded = $piece === '' && feof($stream);
            $found = wxauth_response($answer, $isEnded);
            if ($found !== null) {
                return $found;
            }
            if ($piece === '' && !wxauth_wait($stream, $deadline)) {
                return [WXAUTH_UNREACHABLE, 'no answer within ' . WXAUTH_TIME_LIMIT . ' seconds'];
            }
        }
        return [WXAUTH_FAILED, 'the response is too large'];
    } finally {
        restore_error_handler();
        empty($stream) || fclose($stream);
    }
}

/** Returns null after the handshake, and otherwise whether wxauth is unreachable or has failed. */
function wxauth_encrypt($stream, float $deadline, string &$reason)
{
    do {
        $isEncrypted = stream_socket_enable_crypto($stream, true, STREAM_CRYPTO_METHOD_TLS_CLIENT);
        if ($isEncrypted === true) {
            return null;
        }
        if ($isEncrypted === false) {
            return preg_match('/reset by peer|unexpected eof|broken pipe/i', $reason) ? WXAUTH_UNREACHABLE : WXAUTH_FAILED;
        }
    } while (wxauth_wait($stream, $deadline));
    $reason = 'no handshake within ' . WXAUTH_TIME_LIMIT . ' seconds';
    return WXAUTH_UNREACHABLE;
}

/** Returns false after the deadline. */
function wxauth_wait($stream, float $deadline, bool $isForWriting = false): bool
{
    $left = (int) (1000000 * ($deadline - microtime(true)));
    if ($left <= 0) {
        return false;
    }
    $reading = $isForWriting ? null : [$stream];
    $writing = $isForWriting ? [$stream] : null;
    $other = null;
    stream_select($reading, $writing, $other, intdiv($left, 1000000), $left % 1000000);
    return true;
}

/** Returns the response, or null while some of it is missing. The status decides, unless it is 200. */
function wxauth_response(string $answer, bool $isEnded)
{
    do {
        $end = strpos($answer, "\r\n\r\n");
        if ($end === false) {
            return $isEnded ? [WXAUTH_UNREACHABLE, 'the connection ended without a response'] : null;
        }
        $head = substr($answer, 0, $end) . "\r\n";
        $answer = (string) substr($answer, $end + 4);
        if (!preg_match('~^HTTP/1\.[01] ([1-5]\d\d)[ \r]~', $head, $status)) {
            return [WXAUTH_FAILED, 'the response is not HTTP/1.1'];
        }
    } while ($status[1][0] === '1');
    if ($status[1] !== '200') {
        return [(int) $status[1], ''];
    }
    if (preg_match('/^transfer-encoding: *chunked *\r$/mi', $head)) {
        $body = wxauth_unchunked($answer);
    } elseif (preg_match('/^content-length: *(\d{1,9}) *\r$/mi', $head, $length)) {
        $body = strlen($answer) < (int) $length[1] ? null : (string) substr($answer, 0, (int) $length[1]);
    } else {
        $body = $isEnded ? $answer : null;
    }
    return $body === null ? ($isEnded ? [WXAUTH_FAILED, 'the response is cut off'] : null) : [200, $body];
}

function wxauth_unchunked(string $chunks)
{
    $body = '';
    while (preg_match('/^([0-9a-f]{1,6})[^\r\n]*\r\n/i', $chunks, $size)) {
        $start = strlen($size[0]);
        $length = (int) hexdec($size[1]);
        if ($length === 0) {
            return $body;
        }
        if (strlen($chunks) < $start + $length + 2) {
            return null;
        }
        $body .= substr($chunks, $start, $length);
        $chunks = (string) substr($chunks, $start + $length + 2);
    }
    return null;
}
