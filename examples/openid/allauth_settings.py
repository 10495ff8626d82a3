"""Django settings for django-allauth 65 with its extra `socialaccount`. Include `allauth.urls` at `accounts/`."""

import os

AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
SOCIALACCOUNT_PROVIDERS = {
    "openid_connect": {
        "OAUTH_PKCE_ENABLED": True,
        "APPS": [
            {
                "provider_id": "wxauth",
                "name": "微信",
                "client_id": os.environ["WXAUTH_CLIENT_ID"],
                "secret": os.environ["WXAUTH_CLIENT_SECRET"],
                "settings": {"server_url": os.environ["WXAUTH_ISSUER"], "scope": ["openid", "profile"]},
            }
        ],
    }
}
