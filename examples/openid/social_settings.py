"""Django settings for social-auth-app-django 8. Include `social_django.urls` at `social/`."""

import os

AUTHENTICATION_BACKENDS = ["social_core.backends.open_id_connect.OpenIdConnectAuth"]
SOCIAL_AUTH_OIDC_OIDC_ENDPOINT = os.environ["WXAUTH_ISSUER"]
SOCIAL_AUTH_OIDC_KEY = os.environ["WXAUTH_CLIENT_ID"]
SOCIAL_AUTH_OIDC_SECRET = os.environ["WXAUTH_CLIENT_SECRET"]
SOCIAL_AUTH_OIDC_IGNORE_DEFAULT_SCOPE = True
SOCIAL_AUTH_OIDC_SCOPE = ["openid", "profile"]
SOCIAL_AUTH_OIDC_USE_PKCE = True
SOCIAL_AUTH_OIDC_USERNAME_KEY = "sub"
SOCIAL_AUTH_OIDC_FIRST_NAME_KEY = "name"
SOCIAL_AUTH_LOGIN_ERROR_URL = "/"
