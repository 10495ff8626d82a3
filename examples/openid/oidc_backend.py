"""The authentication back end for mozilla-django-oidc.

It uses `sub` as the user name, because users have no e-mail address.
"""

import os
from urllib.parse import urlencode

from mozilla_django_oidc.auth import OIDCAuthenticationBackend


class WxauthBackend(OIDCAuthenticationBackend):
    def verify_claims(self, claims):
        return "sub" in claims

    def filter_users_by_claims(self, claims):
        return self.UserModel.objects.filter(username=claims["sub"])

    def create_user(self, claims):
        return self.UserModel.objects.create_user(claims["sub"], first_name=claims.get("name", ""))

    def update_user(self, user, claims):
        user.first_name = claims.get("name", "")
        user.save()
        return user


def logout_url(request):
    hint = {
        "id_token_hint": request.session["oidc_id_token"],
        "post_logout_redirect_uri": request.build_absolute_uri("/"),
    }
    return f"{os.environ['WXAUTH_ISSUER']}/v1/end_session?{urlencode(hint)}"
