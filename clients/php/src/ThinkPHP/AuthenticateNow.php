<?php

namespace Wxauth\ThinkPHP;

use Wxauth\Guard;

/** Also asks wxauth about each token. */
class AuthenticateNow extends Authenticate
{
    protected function guard(): Guard
    {
        return parent::guard()->current();
    }
}
