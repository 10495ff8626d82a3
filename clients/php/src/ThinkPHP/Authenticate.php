<?php

namespace Wxauth\ThinkPHP;

use Wxauth\Guard;
use Wxauth\Refusal;

/**
 * Admits the users who have all roles that the route names, in ThinkPHP 5.1, 6 and 8. `app('wxauth_user')` is the user.
 * The options of the guard are in config/wxauth.php.
 */
class Authenticate
{
    public function handle($request, \Closure $next, ...$roles)
    {
        $guard = $this->guard();
        try {
            // ThinkPHP 5.1 passes null if the route names no role.
            $user = $guard->user($request->header('authorization', ''), ...array_values(array_filter($roles)));
        } catch (Refusal $refusal) {
            $languages = [(string) $request->header('accept-language', ''), (string) $request->header('user-agent', '')];
            list($status, $headers, $body) = $guard->response($refusal, ...$languages);
            return response($body, $status, $headers);
        }
        // Not in the request: in ThinkPHP 5.1, `$request->wxauth` is a parameter, which a caller could send.
        bind('wxauth_user', $user);
        return $next($request);
    }

    protected function guard(): Guard
    {
        return new Guard(config('wxauth.') ?: config('wxauth')); // the first for 5.1, the second for 6 and 8
    }
}
