"""Two sample clients: one that has every field, and one that isn't a site."""

from tests.fakes import LOGO
from tests.world import Body
from wxauth.clients.models import OPTIONS

NO_SITE: Body = {
    **{name: field.default for name, field in OPTIONS.items()},
    **{"title": None, "is_public": False, "device": False, "redirect_uris": [], "logout_uris": [], "app_id": None},
    **{"account_app_id": None, "website_app_id": None, "link": False, "phone_id_token": False},
    **{"near": False, "user_code": False, "email_domain": None, "sso": False, "pkce": "required", "id_token_alg": None},
    **{"resources": [], "logo": None},
    "claims": None,
    "backchannel_logout_uri": None,
}
SITE: Body = {
    "title": "小店",
    "logo": LOGO,
    "scopes": ["users", "openid", "roles"],
    "is_public": False,
    "device": True,
    "redirect_uris": ["https://shop.example.com/callback", "http://127.0.0.1/callback"],
    "logout_uris": ["https://shop.example.com/"],
    "app_id": "wx1a2b3c4d5e6f7a8b",
    "account_app_id": None,
    "website_app_id": None,
    "near": True,
    "user_code": True,
    "email_domain": "example.com",
    "sso": False,
    "id_token_alg": "ES256",
    "backchannel_logout_uri": "http://127.0.0.1/logout",
}
