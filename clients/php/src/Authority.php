<?php

namespace Wxauth;

/** What `current()` asks about each token. */
final class Authority
{
    const AWAY = [Http::UNREACHABLE, 502, 503, 504];
    const FRESH_FOR = 1.0; // seconds for which a finding admits tokens without a question

    private $base;
    private $query;
    private $folder;

    /** @param Folder|null $folder where the processes share what they have found out; null if an outage admits nobody */
    public function __construct(string $base, string $query, $folder)
    {
        $this->base = $base;
        $this->query = $query;
        $this->folder = $folder;
    }

    /**
     * Returns the current roles of the token's user.
     *
     * @throws Refusal
     */
    public function ask(string $token, User $user): array
    {
        if ($this->folder && $this->wasAway()) {
            throw self::notAsked('it was away a moment ago', true);
        }
        list($status, $answer, $head) = Http::get("$this->base/v1/verify$this->query", ["Authorization: Bearer $token"]) + [2 => ''];
        if ($status === 401) {
            throw new Refusal($user->claims['exp'] <= time() ? 'token_expired' : 'session_revoked', 'the session has ended');
        }
        if ($status === 403) {
            throw new Refusal('insufficient_scope', "wxauth doesn't accept this token here");
        }
        if ($status !== 200) {
            $isOutage = $this->folder && in_array($status, self::AWAY, true);
            // A response tells that wxauth is away. Without one, this machine might be the reason.
            $isOutage = $isOutage && ($status !== Http::UNREACHABLE || $this->findsKeysAway());
            throw self::notAsked($status > 0 ? "status $status" : $answer, $isOutage, "status $status");
        }
        $session = self::header($head, 'X-Auth-Session-ID');
        if (self::header($head, 'X-Auth-User-ID') !== $user->id || ($session !== '' && $session !== $user->sessionId)) {
            throw self::notAsked('its response is not about this session: is there a proxy in between?');
        }
        return array_values(array_filter(explode(',', self::header($head, 'X-Auth-Roles')), 'strlen'));
    }

    private function wasAway(): bool
    {
        $age = microtime(true) - (float) @file_get_contents($this->folder->file('.away'));
        return $age >= 0 && $age <= self::FRESH_FOR;
    }

    /** Asks for the public keys, without anybody's token, unless another process asks or has asked within a second. */
    private function findsKeysAway(): bool
    {
        $lock = @fopen($this->folder->file('.away.lock'), 'c+');
        if (!$lock || !flock($lock, LOCK_EX | LOCK_NB)) {
            $lock && fclose($lock);
            return $this->wasAway();
        }
        $age = microtime(true) - (float) stream_get_contents($lock);
        if ($age >= 0 && $age <= self::FRESH_FOR) {
            fclose($lock);
            return $this->wasAway();
        }
        rewind($lock);
        ftruncate($lock, 0);
        fwrite($lock, sprintf('%F', microtime(true)));
        $isAway = in_array(Http::get($this->base . Keys::PATH)[0], self::AWAY, true);
        if ($isAway) {
            $this->folder->write($this->folder->file('.away'), sprintf('%F', microtime(true)));
        }
        fclose($lock);
        return $isAway;
    }

    private static function header(string $head, string $name): string
    {
        return preg_match("/^$name: *([^\r]*?) *\r$/mi", $head, $match) ? $match[1] : '';
    }

    private static function notAsked(string $reason, bool $isOutage = false, string $cause = 'another session'): Refusal
    {
        $refusal = new Refusal('verification_unavailable', "wxauth can't be asked about the session", $isOutage);
        return $refusal->because("a token could not be verified at once: $reason", $cause);
    }
}
