<?php

namespace Wxauth\Laravel;

use Wxauth\Guard;

/** Also asks wxauth about each token. */
class AuthenticateNow extends Authenticate
{
    public function __construct(Guard $guard)
    {
        parent::__construct($guard->current());
    }
}
