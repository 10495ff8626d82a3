<?php

namespace Wxauth;

/** Asks wxauth, and tells whether it is away or has failed. */
final class Http
{
    const TIME_LIMIT = 2; // seconds, for a whole request
    const MAX_LATE = 0.5; // seconds by which this process may be late before it can tell nothing about wxauth
    const LARGEST = 262144; // bytes
    // What this machine lacks on Linux or BSD: EPERM, EAGAIN, ENOMEM, EACCES, ENFILE, EMFILE, EADDRINUSE, EADDRNOTAVAIL, ENOBUFS.
    const OWN_ERRORS = [1, 11, 35, 12, 13, 23, 24, 48, 98, 49, 99, 55, 105];
    const UNREACHABLE = 0;
    const FAILED = -1;

    /**
     * Returns the status, the body and the head of a response, or UNREACHABLE or FAILED and the reason. It follows no
     * redirect. PHP's own HTTP functions limit only the time between two reads, and don't tell a wrong certificate from a
     * server that is away.
     */
    public static function get(string $url, array $headers = []): array
    {
        $began = microtime(true);
        $found = self::ask($url, $headers, $began + self::TIME_LIMIT);
        $isLate = microtime(true) - $began > self::TIME_LIMIT + self::MAX_LATE;
        return $isLate && $found[0] === self::UNREACHABLE ? [self::FAILED, 'this machine is too busy'] : $found;
    }

    private static function ask(string $url, array $headers, float $deadline): array
    {
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
            $stream = stream_socket_client($address, $number, $reason, self::TIME_LIMIT, STREAM_CLIENT_CONNECT, $tls);
            if (!$stream) {
                return [in_array($number, self::OWN_ERRORS, true) ? self::FAILED : self::UNREACHABLE, $reason];
            }
            if (microtime(true) >= $deadline) {
                return [self::FAILED, "it took too long to resolve the host's name"]; // PHP limits only the connection
            }
            stream_set_blocking($stream, false);
            if ($isTls) {
                $fault = self::encrypt($stream, $deadline, $reason);
                if ($fault !== null) {
                    return [$fault, $reason];
                }
            }
            $headers[] = "Host: $url[host]" . (isset($url['port']) ? ":$url[port]" : '');
            $headers[] = 'Connection: close';
            $path = $url['path'] . (isset($url['query']) ? "?$url[query]" : '');
            $request = "GET $path HTTP/1.1\r\n" . implode("\r\n", $headers) . "\r\n\r\n";
            while ($request !== '' && microtime(true) < $deadline) {
                $sent = fwrite($stream, $request);
                if ($sent === false || feof($stream)) {
                    break; // a response may have been sent nevertheless
                }
                $request = (string) substr($request, $sent);
                $request === '' || self::wait($stream, $deadline, true);
            }
            $answer = '';
            while (strlen($answer) <= self::LARGEST) {
                $piece = (string) fread($stream, 65536);
                $answer .= $piece;
                $isEnded = $piece === '' && feof($stream);
                $found = self::response($answer, $isEnded);
                if ($found !== null) {
                    return $found;
                }
                if ($piece === '' && !self::wait($stream, $deadline)) {
                    return [self::UNREACHABLE, 'no answer within ' . self::TIME_LIMIT . ' seconds'];
                }
            }
            return [self::FAILED, 'the response is too large'];
        } finally {
            restore_error_handler();
            empty($stream) || fclose($stream);
        }
    }

    /** Returns null after the handshake, and otherwise whether wxauth is unreachable or has failed. */
    private static function encrypt($stream, float $deadline, string &$reason)
    {
        do {
            $isEncrypted = stream_socket_enable_crypto($stream, true, STREAM_CRYPTO_METHOD_TLS_CLIENT);
            if ($isEncrypted === true) {
                return null;
            }
            if ($isEncrypted === false) {
                return preg_match('/reset by peer|unexpected eof|broken pipe/i', $reason) ? self::UNREACHABLE : self::FAILED;
            }
        } while (self::wait($stream, $deadline));
        $reason = 'no handshake within ' . self::TIME_LIMIT . ' seconds';
        return self::UNREACHABLE;
    }

    /** Returns false after the deadline. */
    private static function wait($stream, float $deadline, bool $isForWriting = false): bool
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
    private static function response(string $answer, bool $isEnded)
    {
        do {
            $end = strpos($answer, "\r\n\r\n");
            if ($end === false) {
                return $isEnded ? [self::UNREACHABLE, 'the connection ended without a response'] : null;
            }
            $head = substr($answer, 0, $end) . "\r\n";
            $answer = (string) substr($answer, $end + 4);
            if (!preg_match('~^HTTP/1\.[01] ([1-5]\d\d)[ \r]~', $head, $status)) {
                return [self::FAILED, 'the response is not HTTP/1.1'];
            }
        } while ($status[1][0] === '1');
        if ($status[1] !== '200') {
            return [(int) $status[1], '', $head];
        }
        if (preg_match('/^transfer-encoding: *chunked *\r$/mi', $head)) {
            $body = self::unchunked($answer);
        } elseif (preg_match('/^content-length: *(\d{1,9}) *\r$/mi', $head, $length)) {
            $body = strlen($answer) < (int) $length[1] ? null : (string) substr($answer, 0, (int) $length[1]);
        } else {
            $body = $isEnded ? $answer : null;
        }
        return $body === null ? ($isEnded ? [self::FAILED, 'the response is cut off'] : null) : [200, $body, $head];
    }

    private static function unchunked(string $chunks)
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
}
