<?php

namespace Wxauth\Laravel;

use Illuminate\Support\ServiceProvider;
use Wxauth\Guard;

/** Makes the guard from config/wxauth.php, and names the middleware `wxauth` and `wxauth.current`. */
class WxauthServiceProvider extends ServiceProvider
{
    public function register()
    {
        $this->app->singleton(Guard::class, function ($app) {
            return new Guard($app['config']->get('wxauth') ?: []);
        });
    }

    public function boot()
    {
        $this->app['router']->aliasMiddleware('wxauth', Authenticate::class);
        $this->app['router']->aliasMiddleware('wxauth.current', AuthenticateNow::class);
    }
}
