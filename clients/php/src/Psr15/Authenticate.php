<?php

namespace Wxauth\Psr15;

use Psr\Http\Message\ResponseFactoryInterface;
use Psr\Http\Message\ResponseInterface;
use Psr\Http\Message\ServerRequestInterface;
use Psr\Http\Server\MiddlewareInterface;
use Psr\Http\Server\RequestHandlerInterface;
use Wxauth\Guard;
use Wxauth\Refusal;

/** Admits the users who have all of these roles. The request's attribute `wxauth` is the user. */
final class Authenticate implements MiddlewareInterface
{
    private $guard;
    private $responses;
    private $roles;

    public function __construct(Guard $guard, ResponseFactoryInterface $responses, string ...$roles)
    {
        $this->guard = $guard;
        $this->responses = $responses;
        $this->roles = $roles;
    }

    public function process(ServerRequestInterface $request, RequestHandlerInterface $handler): ResponseInterface
    {
        try {
            // Two headers are no valid token.
            $user = $this->guard->user($request->getHeaderLine('Authorization'), ...$this->roles);
        } catch (Refusal $refusal) {
            $languages = [$request->getHeaderLine('Accept-Language'), $request->getHeaderLine('User-Agent')];
            list($status, $headers, $body) = $this->guard->response($refusal, ...$languages);
            $response = $this->responses->createResponse($status);
            foreach ($headers as $name => $value) {
                $response = $response->withHeader($name, $value);
            }
            $response->getBody()->write($body);
            return $response;
        }
        return $handler->handle($request->withAttribute('wxauth', $user));
    }
}
