<?php

namespace Wxauth;

/** The user behind a valid token. */
final class User
{
    /** @var string a UUID, the key of your own data */
    public $id;
    /** @var string a UUID, one for each login on a device */
    public $sessionId;
    /** @var string the AppID of the user's app, or the client of a website or an agent */
    public $clientId;
    /** @var string the app in which the user has this openid */
    public $appId;
    /** @var string */
    public $openid;
    /** @var string|null the user's ID in the system from which they were imported */
    public $externalId;
    /** @var string[] */
    public $roles = [];
    /** @var string[] the scopes of a website or an agent */
    public $scope = [];
    /** @var array all claims */
    public $claims;
    /** @var bool|null whether wxauth has confirmed the session a moment ago; null if it was not asked */
    public $isCurrent;

    public function hasRole(string $role): bool
    {
        return in_array($role, $this->roles, true);
    }
}
