<?php

namespace Wxauth;

/**
 * Verifies wxauth's access tokens with the public keys that wxauth publishes. All PHP processes share the keys in a
 * folder, and one of them reads them every five minutes.
 */
final class Guard
{
    const VERSION = '0.1.0';
    const OPTIONS = ['issuer', 'audience', 'websites', 'or_offline', 'internal_url', 'keys_dir', 'refusals', 'log', 'keys', 'authority'];

    private $options;
    private $folder;
    private $keys;
    private $authority;
    private $isAsking = false;
    private $isOptional = false;

    /**
     * Of the options, only `issuer` is needed, which is wxauth's setting ISSUER:
     *
     * - `audience`: wxauth's setting AUDIENCE, or the URL of a resource. The default is "wxauth".
     * - `websites`: true to admit the tokens of websites and agents, too.
     * - `or_offline`: true to let `current()` admit valid tokens while wxauth is away.
     * - `internal_url`: wxauth's address in your own network.
     * - `keys_dir`: a folder of mode 0700 that belongs to the user that runs PHP. The default is in the folder for
     *   temporary files.
     * - `refusals`: function (Refusal $refusal, string $acceptLanguage): array, which returns the status, the headers
     *   and the body of a response, for example in your project's own envelope.
     * - `log`: function (string $line), which logs why tokens are refused and keys cannot be read. The default is
     *   `error_log`.
     *
     * Only tests set `keys` and `authority`.
     */
    public function __construct(array $options)
    {
        $unknown = array_diff(array_keys($options), self::OPTIONS);
        if ($unknown) {
            throw new \InvalidArgumentException('unknown options: ' . implode(', ', $unknown));
        }
        if (isset($options['log']) && !is_callable($options['log'])) {
            throw new \InvalidArgumentException('log is a function');
        }
        $this->options = $options + ['audience' => 'wxauth', 'websites' => false, 'or_offline' => false, 'log' => 'error_log'];
        foreach (['websites', 'or_offline'] as $name) {
            if (!is_bool($this->options[$name])) { // the text "false" would be true
                throw new \InvalidArgumentException("$name is true or false");
            }
        }
        $issuer = $options['issuer'] ?? null;
        if (!self::isPlain($issuer) || !self::isSecure($issuer)) {
            throw new \InvalidArgumentException('issuer must be an https URL, or http on loopback, without user, query, fragment or a slash at the end');
        }
        if (!is_string($this->options['audience']) || $this->options['audience'] === '') {
            throw new \InvalidArgumentException('audience must be a string, and not empty');
        }
        if (isset($options['internal_url']) && !self::isPlain($options['internal_url'])) {
            throw new \InvalidArgumentException('internal_url must be an http or https URL without user, query, fragment or a slash at the end');
        }
        $base = $options['internal_url'] ?? $issuer;
        $log = $this->options['log'];
        $this->folder = new Folder($options['keys_dir'] ?? '', $issuer, $log);
        $this->keys = $options['keys'] ?? new Keys($base, $this->folder, $log);
        $findings = $this->options['or_offline'] ? $this->folder : null;
        $this->authority = $options['authority'] ?? new Authority($base, $this->query(), $findings);
    }

    /**
     * Returns a guard that also asks wxauth about each token, so that a ban or a sign-out counts at once. If wxauth does
     * not answer within 2 seconds, it refuses with 503, unless the guard has the option `or_offline`.
     */
    public function current(): self
    {
        $guard = clone $this;
        $guard->isAsking = true;
        return $guard;
    }

    /** Returns a guard for which a request without a bearer token has the user null. It refuses a wrong token. */
    public function optional(): self
    {
        $guard = clone $this;
        $guard->isOptional = true;
        return $guard;
    }

    /**
     * Returns the user of the token in an Authorization header, who has all of these roles.
     *
     * @return User|null null for a guest of an optional guard
     * @throws Refusal
     */
    public function user($authorization, string ...$roles)
    {
        if (in_array('', $roles, true)) {
            throw new \InvalidArgumentException('a role is not empty');
        }
        if (!preg_match('/^Bearer +(.*[^ ]) *$/Dis', (string) $authorization, $match)) {
            if ($this->isOptional && !$roles) {
                return null;
            }
            throw new Refusal('missing_token', "send the access token as 'Authorization: Bearer ...'");
        }
        $user = $this->verified($match[1]);
        $missing = array_diff($roles, $user->roles);
        if ($missing) {
            throw new Refusal('insufficient_role', 'this request requires the role ' . implode(', ', $missing));
        }
        return $user;
    }

    /** Returns the status, the headers and the body of the response to a refused request. */
    public function response(Refusal $refusal, string $acceptLanguage = '', string $userAgent = ''): array
    {
        $language = Refusal::language($acceptLanguage, $userAgent);
        $write = $this->options['refusals'] ?? null;
        return $write ? $write($refusal, $language) : $refusal->response($language);
    }

    private function verified(string $token): User
    {
        $user = null;
        $allowsScope = $this->options['websites'] || $this->isOfResource();
        try {
            $user = Token::verified($token, $this->options['issuer'], $this->options['audience'], $this->keys, $allowsScope);
            if ($this->isAsking) {
                $user->roles = $this->authority->ask($token, $user);
                $user->isCurrent = true;
            }
        } catch (Refusal $refusal) {
            if ($refusal->logged && !isset($this->options['keys'])) {
                $this->folder->logOnce($refusal->logged[1], $refusal->logged[0]);
            }
            if (!$user || !$this->options['or_offline'] || !$refusal->isOutage) {
                throw $refusal;
            }
            $user->isCurrent = false;
        }
        return $user;
    }

    private function isOfResource(): bool
    {
        return preg_match('#^https?://#i', $this->options['audience']) === 1;
    }

    /** Returns the query of /v1/verify with which wxauth admits the tokens that this guard admits. */
    private function query(): string
    {
        if ($this->isOfResource()) {
            return '?' . http_build_query(['resource' => $this->options['audience']]);
        }
        return $this->options['websites'] ? '?websites=true' : '';
    }

    private static function isPlain($url): bool
    {
        return is_string($url) && preg_match('~^https?://[^\s/?#@\\\\]+(/[^\s?#@\\\\]*[^\s?#@\\\\/])?$~D', $url) === 1;
    }

    private static function isSecure(string $url): bool
    {
        return preg_match('~^(https://|http://(localhost|\[::1\]|127(\.\d{1,3}){3})([:/]|$))~D', $url) === 1;
    }
}
