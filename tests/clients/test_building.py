"""`build_client` decides which services and sites are valid."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.clients.samples import SITE
from tests.fakes import LOGO, logo_of
from wxauth.clients.rules import WrongClient, build_client

pytestmark = pytest.mark.no_database

SCHEME, HOST, PORT, CHARACTERS = (
    "must use https",
    "must have a host that contains only letters",
    "must have a port from 1 to 65535",
    "must contain only characters that a URI allows",
)
MANY = [f"https://shop.example.com/{n}" for n in range(101)]
URIS = {"redirect_uris": SITE["redirect_uris"]}
ADDRESSES_OF_NO_USER = (
    *("a@shop.example", "$$attributes.mail", "$user.id", "$openid", "$user.unionid", "$user.roles"),
    *(None, ["$attributes.mail"], {"a": "$attributes.mail"}, 7),
)
VERIFIED = {"email": "$attributes.mail", "email_verified": True}


def refusal(options: Mapping[str, Any]) -> tuple[str, str]:
    """Return the field that makes this client invalid, and the rule that it breaks."""
    with pytest.raises(WrongClient) as refused:
        build_client("other", options)
    [error] = refused.value.errors
    return error.field, error.message


@pytest.mark.parametrize("field", ["redirect_uris", "logout_uris"])
@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("http://shop.example.com/callback", "must use https, except for a loopback address"),
        ("http://192.168.1.10:3000/cb", "must use https, except for a loopback address"),
        ("http://127.0.0.1.example.com/", "must use https, except for a loopback address"),
        ("shop.example.com/callback", SCHEME),
        ("javascript:alert(1)", SCHEME),
        ("shopapp://callback", SCHEME),
        ("com.example.shop:callback", SCHEME),
        ("file:///callback", SCHEME),
        ("ftp://shop.example.com/", SCHEME),
        ("HTTPS://shop.example.com/", SCHEME),
        ("", SCHEME),
        ("https://user@shop.example.com/", HOST),
        ("https://*.example.com/callback", HOST),
        ("https://shop.example.com\\@evil.example/", HOST),
        ("https://", HOST),
        ("https://user:pw@shop.example.com/", HOST),
        ("https://shop.example.com@:99999/", HOST),
        ("https://[:::1]:99/", HOST),
        *(
            (f"{origin}:{port}", PORT)
            for origin in ("https://shop.example.com", "http://127.0.0.1", "https://[::1]")
            for port in (
                "0/",
                "00000/",
                "65536/",
                "99999/cb",
                "100000?a=b",
                "000080",
                "/",
                "?",
                "",
                "-1/",
                "80x/",
                "８０/",
                "1:2/",
            )
        ),
        ("https://商店.example.com/", HOST),
        ("https://my_shop.example.com/cb", HOST),
        ("https://https://shop.example.com/", PORT),
        ("https://[::1]x/", HOST),
        ("https://shop[.example.com/", HOST),
        ("https://shop.example.com/*", "* isn't a wildcard"),
        ("https://shop.example.com/call back", CHARACTERS),
        ("https://shop.example.com/回调", CHARACTERS),
        ("https://shop.example.com/callback#part", "fragment"),
        ("https://shop.example.com/" + "x" * 2048, "2048"),
    ],
)
def test_a_redirect_uri_that_is_refused_is_told_which_rule_it_breaks(field: str, uri: str, rule: str) -> None:
    refused, message = refusal({**SITE, field: [*SITE[field], uri]})
    assert (refused, rule in message, len(uri) > 9 and uri in message) == (field, True, False)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        *(
            (field, {field: [f"https://shop.example.com/{n}" for n in range(101)]})
            for field in ("redirect_uris", "logout_uris")
        ),
        ("logout_uris", {"redirect_uris": []}),
        ("sso", {"sso": True}),
        ("sso", {"sso": True, "near": False, "redirect_uris": [], "logout_uris": []}),
        ("phone_id_token", {"phone_id_token": True}),
        ("phone_id_token", {"phone_id_token": True, "near": False, "scopes": ["users", "phone"]}),
        ("scopes", {"scopes": ["openid", "everything"]}),
        ("scopes", {"scopes": ["wxauth:admin"]}),
        ("title", {"title": "a\nb"}),
        ("title", {"title": "\u3000 "}),
        ("title", {"title": "\u202epohS"}),
        ("title", {"title": "a" * 65}),
        ("logo", {"logo": "https://shop.example.com/logo.png"}),
        ("logo", {"logo": "data:image/svg+xml;base64,PHN2Zz4="}),
        ("logo", {"logo": LOGO.rstrip("=")}),  # the padding is missing
        ("logo", {"logo": "data:image/png;base64,iVBORw0KGgo="}),  # only the first bytes of a PNG
        ("logo", {"logo": logo_of(1025)}),
        ("app_id", {"app_id": "wx 1"}),
        ("email_domain", {"email_domain": "a@example.com"}),
        ("email_domain", {"email_domain": "example"}),
        ("id_token_alg", {"id_token_alg": "HS256"}),
        ("id_token_alg", {"id_token_alg": "none"}),
        *(("id_token_ttl", {"id_token_ttl": ttl}) for ttl in (0, 59, -1, True, 60.5, "60", 2**62)),
        ("email_domain", {"claims": {"email": "$attributes.mail"}}),
        *(
            ("claims", {"email_domain": None, "claims": claims})
            for claims in (
                *({"email": email} for email in ADDRESSES_OF_NO_USER),
                {"Email": "$attributes.mail"},
                {"email_verified": False},
                *({"email": "$attributes.mail", "email_verified": value} for value in ("true", 1, None, "$openid")),
                {"email": "$attributes.mail", "EMAIL_VERIFIED": True},
            )
        ),
        ("i_verify_this_address", {"email_domain": None, "claims": VERIFIED}),
        (
            "omit_email_verified",
            {"email_domain": None, "claims": {**VERIFIED, "email_verified": False}, "omit_email_verified": True},
        ),
    ],
)
def test_a_site_with_a_wrong_field_is_refused_by_its_name(field: str, changes: dict[str, Any]) -> None:
    assert refusal({**SITE, **changes})[0] == field


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("is_public", {**URIS, "is_public": True, "device": True}),
        ("scopes", {**URIS, "is_public": True, "scopes": ["users"]}),
        ("is_public", {"is_public": True}),
        ("title", {"title": "小店"}),
        ("scopes", {"scopes": ["openid"]}),
        ("scopes", {"scopes": ["everything"]}),
        ("claims", {"claims": {"team": "a"}}),
        ("backchannel_logout_uri", {"backchannel_logout_uri": "http://127.0.0.1/logout"}),
        ("pkce", {"pkce": "optional"}),
    ],
)
def test_what_is_for_a_site_is_refused_to_a_service(field: str, options: dict[str, Any]) -> None:
    assert refusal(options)[0] == field


def test_a_service_may_introspect_and_a_site_has_a_title_and_scopes_by_default() -> None:
    assert build_client("billing", {}).scopes == ["introspect"]
    assert build_client("billing", {"scopes": ["users", "introspect", "users"]}).scopes == ["introspect", "users"]
    site = build_client("shop", {"device": True})
    assert (site.title, site.scopes, site.id_token_alg) == ("shop", ["openid", "profile"], "RS256")
