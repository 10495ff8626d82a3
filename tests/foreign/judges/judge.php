<?php

// Prints the verdicts of wxauth_keys.php on each line from tests/foreign/key_documents.py. It needs no php-jwt.

require 'wxauth_keys.php';

function status(string $issuer, string $token): int
{
    $keys = wxauth_keys($issuer, $token, kept($issuer));
    $kid = json_decode(base64_decode(explode('.', $token)[0]))->kid;
    return $keys === null ? 503 : (in_array($kid, array_column($keys['keys'], 'kid'), true) ? 200 : 401);
}

function kept(string $issuer): string
{
    return getenv('KEPT') . '/' . md5($issuer) . '.json';
}

function forget_the_pause(string $issuer): void
{
    @unlink(kept($issuer) . '.lock');
}

while ($line = fgets(STDIN)) {
    [$issuer, $token, $stranger] = explode(' ', trim($line));
    $first = status($issuer, $token);
    forget_the_pause($issuer);
    if (strpos($issuer, '/old/')) {
        $kept = json_decode(file_get_contents(kept($issuer)), true);
        file_put_contents(kept($issuer), json_encode(['read_at' => time() - 360] + $kept));
    }
    $between = status($issuer, $stranger);
    forget_the_pause($issuer);
    echo $first, ' ', $between, ' ', status($issuer, $token), "\n";
}
