<?php

namespace Wxauth;

/** The reason for refusing a request. */
final class Refusal extends \RuntimeException
{
    const INVALID = 'Bearer error="invalid_token"';
    const KINDS = [ // the status, the title in English and Chinese, and the challenge
        'missing_token' => [401, 'Please log in.', '请先登录。', 'Bearer'],
        'invalid_token' => [401, 'Your login is no longer valid. Please log in again.', '登录已失效，请重新登录。', self::INVALID],
        'token_expired' => [401, 'Your login has expired. Please log in again.', '登录已过期，请重新登录。', self::INVALID],
        'session_revoked' => [401, 'You have been logged out. Please log in again.', '你已退出登录，请重新登录。', self::INVALID],
        'insufficient_role' => [403, "You don't have permission to do this.", '你没有权限进行此操作。', null],
        'insufficient_scope' => [403, "Your credentials don't have permission to do this.", '当前凭据无权进行此操作。', 'Bearer error="insufficient_scope"'],
        'keys_unavailable' => [503, "The login service can't be reached. Please try again.", '暂时无法验证登录，请稍后再试。', null],
        'verification_unavailable' => [503, "The login service can't be reached. Please try again.", '暂时无法验证登录，请稍后再试。', null],
    ];

    /** @var bool whether wxauth is away, so that a guard with `or_offline` admits the token */
    public $isOutage;
    /** @var string[]|null a line for the log, and its cause, which is one of a few texts */
    public $logged;
    private $kind;

    public function __construct(string $code, string $detail, bool $isOutage = false)
    {
        parent::__construct($detail, self::KINDS[$code][0]);
        $this->kind = $code;
        $this->isOutage = $isOutage;
    }

    /** @internal */
    public function because(string $line, string $cause = ''): self
    {
        $this->logged = [$line, $cause ?: $this->getMessage()];
        return $this;
    }

    /** Returns 401, 403 or 503. */
    public function status(): int
    {
        return self::KINDS[$this->kind][0];
    }

    /** Returns one of wxauth's codes, for example "token_expired". */
    public function code(): string
    {
        return $this->kind;
    }

    /** Returns the value of WWW-Authenticate, or null. */
    public function challenge()
    {
        return self::KINDS[$this->kind][3];
    }

    /** Returns the message for the user. */
    public function title(string $acceptLanguage = ''): string
    {
        return self::KINDS[$this->kind][self::prefersChinese($acceptLanguage) ? 2 : 1];
    }

    /** Returns a problem document (RFC 9457) as an array. */
    public function problem(string $acceptLanguage = ''): array
    {
        return [
            'type' => "urn:wxauth:problem:$this->kind",
            'title' => $this->title($acceptLanguage),
            'status' => $this->status(),
            'detail' => $this->getMessage(),
            'code' => $this->kind,
            'request_id' => bin2hex(random_bytes(16)),
        ];
    }

    /**
     * Returns the status, the headers and the body of the response. A 403 has no challenge here, because PHP sets the
     * status 401 if a framework sends WWW-Authenticate after the status.
     */
    public function response(string $acceptLanguage = ''): array
    {
        $problem = $this->problem($acceptLanguage);
        $headers = [
            'Content-Type' => 'application/problem+json',
            'Cache-Control' => 'no-store',
            'Content-Language' => self::prefersChinese($acceptLanguage) ? 'zh-CN' : 'en',
            'X-Request-ID' => $problem['request_id'],
        ];
        if ($this->status() === 401) {
            $headers['WWW-Authenticate'] = $this->challenge();
        }
        if ($this->status() === 503) {
            $headers['Retry-After'] = '5';
        }
        return [$this->status(), $headers, json_encode($problem, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES)];
    }

    /** Sends the response, if no framework does. */
    public function send()
    {
        $language = self::language($_SERVER['HTTP_ACCEPT_LANGUAGE'] ?? '', $_SERVER['HTTP_USER_AGENT'] ?? '');
        list($status, $headers, $body) = $this->response($language);
        foreach ($headers + array_filter(['WWW-Authenticate' => $this->challenge()]) as $name => $value) {
            header("$name: $value", true, $status);
        }
        echo $body;
    }

    /** Returns the Accept-Language header, or the language of WeChat, whose wx.request sends no such header. */
    public static function language(string $acceptLanguage, string $userAgent): string
    {
        $isChineseWechat = strpos($userAgent, 'MicroMessenger') !== false && !preg_match('~\bLanguage/(?!zh)~', $userAgent);
        return trim($acceptLanguage, '* ') === '' && $isChineseWechat ? 'zh' : $acceptLanguage;
    }

    private static function prefersChinese(string $acceptLanguage): bool
    {
        $best = ['zh' => 0, 'en' => 0];
        foreach (explode(',', substr($acceptLanguage, 0, 1024)) as $position => $part) {
            $range = '/^\s*(zh|en)(?:[-_][a-z0-9_-]*)?\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?$/Di';
            if (preg_match($range, $part, $match) && ($quality = (float) ($match[2] ?? 1)) > 0) {
                $name = strtolower($match[1]);
                $best[$name] = max($best[$name], $quality - $position / 1e6); // of two equal ones, the first counts
            }
        }
        return $best['zh'] > $best['en'];
    }
}
