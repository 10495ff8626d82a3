<?php

namespace Wxauth\Laravel;

use Illuminate\Http\Response;
use Wxauth\Guard;
use Wxauth\Refusal;

/** Admits the users who have all roles that the route names. `$request->attributes->get('wxauth')` is the user. */
class Authenticate
{
    protected $guard;

    public function __construct(Guard $guard)
    {
        $this->guard = $guard;
    }

    public function handle($request, \Closure $next, ...$roles)
    {
        try {
            $user = $this->guard->user($request->header('Authorization', ''), ...$roles);
        } catch (Refusal $refusal) {
            $languages = [(string) $request->header('Accept-Language', ''), (string) $request->header('User-Agent', '')];
            list($status, $headers, $body) = $this->guard->response($refusal, ...$languages);
            return new Response($body, $status, $headers);
        }
        $request->attributes->set('wxauth', $user);
        return $next($request);
    }
}
