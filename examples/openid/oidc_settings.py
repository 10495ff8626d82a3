"""Django settings for mozilla-django-oidc 5. Include `mozilla_django_oidc.urls` at `oidc/`."""

import os

OIDC_RP_CLIENT_ID = os.environ["WXAUTH_CLIENT_ID"]
OIDC_RP_CLIENT_SECRET = os.environ["WXAUTH_CLIENT_SECRET"]
OIDC_OP_AUTHORIZATION_ENDPOINT = os.environ["WXAUTH_ISSUER"] + "/v1/authorize"
OIDC_OP_TOKEN_ENDPOINT = os.environ["WXAUTH_ISSUER"] + "/v1/token"
OIDC_OP_USER_ENDPOINT = os.environ["WXAUTH_ISSUER"] + "/v1/userinfo"
OIDC_OP_JWKS_ENDPOINT = os.environ["WXAUTH_ISSUER"] + "/.well-known/jwks.json"
OIDC_RP_SIGN_ALGO = "RS256"
OIDC_RP_SCOPES = "openid profile"
OIDC_USE_PKCE = True
OIDC_STORE_ID_TOKEN = True
OIDC_OP_LOGOUT_URL_METHOD = "oidc_backend.logout_url"
AUTHENTICATION_BACKENDS = ["oidc_backend.WxauthBackend"]
