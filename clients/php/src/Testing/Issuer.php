<?php

namespace Wxauth\Testing;

use Wxauth\Guard;
use Wxauth\Keys;
use Wxauth\Refusal;
use Wxauth\User;

/** Issues tokens to the tests of a service, without wxauth and without a network. */
final class Issuer
{
    const USER_ID = '01900000-0000-7000-8000-000000000001';
    const SESSION_ID = '01900000-0000-7000-8000-000000000002';

    private $options;
    private $privateKey;
    private $jwk;
    private $banned = [];
    private $ended = [];
    private $roles = [];
    private $isAway = false;

    /** The options are those of a guard. */
    public function __construct(array $options = [])
    {
        $this->options = $options + ['issuer' => 'https://auth.test', 'audience' => 'wxauth'];
        $this->privateKey = openssl_pkey_new(['private_key_type' => OPENSSL_KEYTYPE_EC, 'curve_name' => 'prime256v1']);
        $point = openssl_pkey_get_details($this->privateKey)['ec'];
        $coordinate = function (string $name) use ($point) {
            return self::base64url(str_pad($point[$name], 32, "\0", STR_PAD_LEFT));
        };
        $this->jwk = ['kty' => 'EC', 'crv' => 'P-256', 'kid' => 'test', 'x' => $coordinate('x'), 'y' => $coordinate('y')];
    }

    /** Returns a guard that admits the tokens of this issuer. */
    public function guard(): Guard
    {
        return new Guard(['keys' => $this, 'authority' => $this] + $this->options);
    }

    /**
     * Returns the Authorization header with a token. These values have defaults: userId, sessionId, appId, openid,
     * roles, externalId, scope, expiresIn (seconds) and claims, which replace others of the same name.
     */
    public function authorization(array $values = []): string
    {
        return 'Bearer ' . $this->token($values);
    }

    public function token(array $values = []): string
    {
        $values += ['userId' => self::USER_ID, 'sessionId' => self::SESSION_ID, 'appId' => 'wxtest', 'roles' => []];
        $values += ['openid' => 'openid-of-a-test', 'expiresIn' => 900, 'claims' => []];
        $claims = [
            'iss' => $this->options['issuer'],
            'aud' => $this->options['audience'],
            'sub' => $values['userId'],
            'sid' => $values['sessionId'],
            'client_id' => $values['appId'],
            'openid' => $values['openid'],
            'jti' => bin2hex(random_bytes(16)),
            'iat' => time(),
            'exp' => time() + $values['expiresIn'],
        ];
        $claims += array_filter(['roles' => $values['roles'], 'external_id' => $values['externalId'] ?? null]);
        if (isset($values['scope'])) {
            $claims = ['client_id' => 'shop', 'app_id' => $values['appId'], 'scope' => $values['scope']] + $claims;
        }
        $header = ['alg' => 'ES256', 'typ' => 'at+jwt', 'kid' => 'test'];
        $signed = self::base64url(json_encode($header)) . '.' . self::base64url(json_encode($values['claims'] + $claims));
        openssl_sign($signed, $der, $this->privateKey, OPENSSL_ALGO_SHA256);
        return "$signed." . self::base64url(self::rawSignature($der));
    }

    public function ban(string $userId)
    {
        $this->banned[$userId] = true;
    }

    public function endSession(string $sessionId)
    {
        $this->ended[$sessionId] = true;
    }

    /** Sets the roles that `current()` finds, whatever the token says. */
    public function setRoles(string $userId, string ...$roles)
    {
        $this->roles[$userId] = $roles;
    }

    /** Lets `current()` find no wxauth. */
    public function away(bool $isAway = true)
    {
        $this->isAway = $isAway;
    }

    /** @internal what a guard asks for keys */
    public function find(string $kid)
    {
        return $kid === 'test' ? Keys::usable($this->jwk) : null;
    }

    /** @internal what a guard asks about a token */
    public function ask(string $token, User $user): array
    {
        if ($this->isAway) {
            throw new Refusal('verification_unavailable', 'wxauth is away in this test', true);
        }
        if (isset($this->banned[$user->id]) || isset($this->ended[$user->sessionId])) {
            throw new Refusal('session_revoked', 'the session has ended');
        }
        return $this->roles[$user->id] ?? $user->roles;
    }

    private static function base64url(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }

    /** Returns the two integers of a signature in DER, 32 bytes each. */
    private static function rawSignature(string $der): string
    {
        $raw = '';
        $offset = 2;
        for ($n = 0; $n < 2; $n++) {
            $length = ord($der[$offset + 1]);
            $raw .= str_pad(ltrim(substr($der, $offset + 2, $length), "\0"), 32, "\0", STR_PAD_LEFT);
            $offset += 2 + $length;
        }
        return $raw;
    }
}
