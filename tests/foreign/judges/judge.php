<?php

// Prints the guard's verdicts on each line from tests/foreign/key_documents.py.

require 'autoload.php';

function status(string $issuer, string $token): int
{
    try {
        (new Wxauth\Guard(['issuer' => $issuer, 'keys_dir' => getenv('KEPT')]))->user("Bearer $token");
    } catch (Wxauth\Refusal $refusal) {
        return $refusal->status();
    }
    return 200;
}

function kept(string $issuer): string
{
    return getenv('KEPT') . '/' . hash('sha256', $issuer) . '.json';
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
