<?php

// Prints what PHP's guard says of each token, which is in base64. See tests/foreign/test_attacks.py.

require 'autoload.php';

$options = ['issuer' => $argv[1], 'keys_dir' => 'keys'];
$guards = [new Wxauth\Guard($options), new Wxauth\Guard($options + ['websites' => true])];
while ($line = fgets(STDIN)) {
    $said = [];
    foreach ($guards as $guard) {
        try {
            $user = $guard->user(base64_decode($line));
            $named = [$user->id, $user->sessionId, $user->appId, $user->openid, $user->externalId];
            $said[] = array_merge($named, [$user->roles, $user->scope]);
        } catch (Wxauth\Refusal $refusal) {
            $said[] = $refusal->code();
        }
    }
    echo json_encode($said), "\n";
}
