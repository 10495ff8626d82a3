<?php

namespace Wxauth;

/** The public keys of wxauth. One process reads them, and the others do not wait for it. */
final class Keys
{
    const PATH = '/.well-known/jwks.json';
    const FRESH_FOR = 300; // seconds; wxauth publishes a key at least 360 seconds before it signs with this key
    const KEPT_FOR = 86400; // seconds

    private $base;
    private $folder;
    private $log;

    public function __construct(string $base, Folder $folder, callable $log)
    {
        $this->base = $base;
        $this->folder = $folder;
        $this->log = $log;
    }

    /**
     * Returns the key with this ID as OpenSSL takes it, or null if wxauth has no such key.
     *
     * @return mixed
     * @throws Refusal if there are no keys, or if the key is unknown and the keys are older than five minutes
     */
    public function find(string $kid)
    {
        $kept = $this->kept();
        if (time() - $kept['read_at'] > (isset($kept['keys'][$kid]) ? self::FRESH_FOR : PHP_INT_MIN)) {
            $this->refresh(!$kept['keys']);
            $kept = $this->kept();
        }
        $key = $kept['keys'][$kid] ?? null;
        if (time() - $kept['read_at'] > ($key ? self::KEPT_FOR : self::FRESH_FOR)) {
            throw new Refusal('keys_unavailable', "the issuer's keys cannot be read");
        }
        return self::usable($key);
    }

    private function kept(): array
    {
        $kept = json_decode(@file_get_contents($this->folder->file('.json')) ?: '', true);
        $isWhole = is_array($kept['keys'] ?? null) && is_int($kept['read_at'] ?? null);
        // If the clock was set back, nobody knows how old the keys are.
        return $isWhole && $kept['read_at'] <= time() + 60 ? $kept : ['keys' => [], 'read_at' => 0];
    }

    /** Reads the keys, unless another process is reading them. Only the very first read makes all processes wait. */
    private function refresh(bool $hasNone)
    {
        $lock = @fopen($this->folder->file('.json.lock'), 'c+');
        if (!$lock) {
            return;
        }
        $isFirst = $hasNone && fstat($lock)['size'] === 0;
        $deadline = microtime(true) + Http::TIME_LIMIT;
        while (!($isLocked = flock($lock, LOCK_EX | LOCK_NB)) && $isFirst && microtime(true) < $deadline) {
            usleep(10000);
        }
        if ($isLocked) {
            $this->read($lock, $hasNone ? 2 : 10);
        }
        fclose($lock);
    }

    /** Reads the keys at most once in this pause in seconds. After several failures, reads them only once a minute. */
    private function read($lock, int $pause)
    {
        list($next, $failures) = sscanf(stream_get_contents($lock) ?: '0 0', '%d %d');
        if (time() < $next && $next <= time() + 60) {
            return;
        }
        list($status, $answer) = Http::get($this->base . self::PATH);
        $published = $status === 200 ? json_decode($answer, true, 64)['keys'] ?? null : null;
        $keys = self::usableOf(is_array($published) && $published === array_values($published) ? $published : []);
        // A response without keys counts as a failure, because it might come from a gateway during maintenance.
        if ($keys && $this->folder->write($this->folder->file('.json'), json_encode(['keys' => $keys, 'read_at' => time()]))) {
            $failures = -1;
            $pause = 10;
        } elseif (!$keys) {
            $cause = $status > 0 ? "there is no usable key in the response with status $status" : $answer;
            ($this->log)("wxauth: the keys could not be read: $cause");
        }
        rewind($lock);
        ftruncate($lock, 0);
        fwrite($lock, (time() + min($pause * 2 ** max($failures, 0), 60)) . ' ' . min($failures + 1, 5));
    }

    /** Returns the usable keys by their ID. If two have the same ID, neither is used. */
    private static function usableOf(array $published): array
    {
        $keys = [];
        $counts = [];
        foreach ($published as $jwk) {
            if (self::usable($jwk) !== null) {
                $keys[$jwk['kid']] = $jwk;
                $counts[$jwk['kid']] = ($counts[$jwk['kid']] ?? 0) + 1;
            }
        }
        return array_filter($keys, function ($jwk) use ($counts) {
            return $counts[$jwk['kid']] === 1;
        });
    }

    /** Returns the key in a JWK as OpenSSL takes it, or null if ES256 cannot use the key. */
    public static function usable($jwk)
    {
        $jwk = (is_array($jwk) ? $jwk : []) + ['kty' => '', 'crv' => '', 'kid' => '', 'use' => 'sig', 'alg' => 'ES256', 'x' => '', 'y' => ''];
        $isForES256 = [$jwk['kty'], $jwk['crv'], $jwk['use'], $jwk['alg']] === ['EC', 'P-256', 'sig', 'ES256'];
        if (!$isForES256 || !is_string($jwk['kid']) || $jwk['kid'] === '' || strlen($jwk['kid']) > 256) {
            return null;
        }
        $der = hex2bin('3059301306072a8648ce3d020106082a8648ce3d03010703420004'); // the prefix in DER (RFC 5480)
        foreach ([$jwk['x'], $jwk['y']] as $coordinate) {
            if (!is_string($coordinate) || !preg_match('/^[A-Za-z0-9_-]{43}$/D', $coordinate)) {
                return null;
            }
            $der .= base64_decode(strtr($coordinate, '-_', '+/'));
        }
        $pem = "-----BEGIN PUBLIC KEY-----\n" . base64_encode($der) . "\n-----END PUBLIC KEY-----";
        return openssl_pkey_get_public($pem) ?: null; // false if the point is not on the curve
    }
}
