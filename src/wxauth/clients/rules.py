"""The rules for a client: which names are allowed, and which options can be combined."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from wxauth.clients.models import (
    CLIENT_NAME_PATTERN,
    DEFAULT_ID_TOKEN_ALG,
    DEFAULT_SCOPES,
    DEFAULT_SITE_SCOPES,
    ID_TOKEN_ALGS,
    OPENID_SCOPE,
    SITE_SCOPE_NAMES,
    Client,
    Scope,
)
from wxauth.clients.redirect_uris import check_uris
from wxauth.core.trail import OPERATOR, SYSTEM, WECHAT
from wxauth.i18n import Text, WrongValue, lazy_gettext as _
from wxauth.settings.apps import APP_ID, AppKind, check_logo
from wxauth.settings.claims import check_claims_of_client
from wxauth.settings.types import CENTURY_SECONDS, check_title, match_check
from wxauth_guard.errors import FieldError, InvalidRequest

# A client is an actor in the audit trail, so its name must not look like a user's id, or be the name of one of these
# actors.
_ACTORS: Final = (SYSTEM.name, OPERATOR.name, WECHAT.name)
NAME_RULE: Final = _(
    "must be 1 to 64 characters (a-z, 0-9, _ and -) and begin with a letter or digit. It must not "
    "be a UUID or one of {names}, and must not begin with wxauth",
    names=", ".join(_ACTORS),
)

_NAME: Final = re.compile(CLIENT_NAME_PATTERN)
_USER_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DOMAIN: Final = r"(?=.{1,200}\Z)[a-z0-9-]+(\.[a-z0-9-]+)+"  # with a dot, and up to 200 characters
_FORM_OF_APP_ID: Final = re.compile(r"wx[0-9a-z]{16}")  # as WeChat gives them; `APP_ID` also accepts other forms
# Each field has the kind of the app, and the error text.
APP_FIELDS: Final[Mapping[str, tuple[AppKind, Text]]] = {
    "app_id": ("mini_program", _("must be the app_id of a mini-program")),
    "account_app_id": ("official_account", _("must be the app_id of a service account")),
    "website_app_id": ("website", _("must be the app_id of a website app")),
}
_MIN_ID_TOKEN_TTL: Final = 60
_URI_FIELDS: Final = ("redirect_uris", "logout_uris")


def _check_logo(logo: str) -> None:
    if logo:  # an empty string removes the logo
        check_logo(logo)


def _check_id_token_ttl(seconds: object) -> None:
    if type(seconds) is not int or not _MIN_ID_TOKEN_TTL <= seconds <= CENTURY_SECONDS:
        raise WrongValue(_("must be a number of seconds, {n} or more", n=_MIN_ID_TOKEN_TTL))


# These are checks of single fields, which do not depend on other fields.
_CHECKS: Final[Mapping[str, Callable[[Any], object]]] = {
    "title": check_title,
    **{field: match_check(APP_ID.pattern, rule) for field, (_kind, rule) in APP_FIELDS.items()},
    "email_domain": match_check(_DOMAIN, _("must be a domain such as example.com")),
    "id_token_alg": match_check(
        "|".join(ID_TOKEN_ALGS), _("must be one of {choices}", choices=", ".join(ID_TOKEN_ALGS))
    ),
    "claims": check_claims_of_client,
    "id_token_ttl": _check_id_token_ttl,
    "logo": _check_logo,
    **dict.fromkeys(_URI_FIELDS, check_uris),
}
# A client that sets none of these fields is a service.
_SITE_MAKING_FIELDS: Final = ("redirect_uris", "device", "phone_id_token")
_SITE_FIELDS: Final = tuple(
    field for field in Client.model_fields if field not in ("name", "scopes", "resources", *_SITE_MAKING_FIELDS)
)


class WrongClient(InvalidRequest):
    """The error for options that a client cannot have. It names the wrong field and the rule that this field breaks."""

    def __init__(self, field: str, rule: Text) -> None:
        super().__init__(_("{name}: {rule}", name=field, rule=rule), errors=[FieldError(field, rule)])


def check_name(name: str) -> str:
    """Check the name that an administrator gives to a client, and return it. Raises: WrongValue."""
    if not is_client_name(name) or is_own_name(name):
        raise WrongValue(NAME_RULE)
    return name


def is_client_name(text: str) -> bool:
    """Return whether a client, or one of wxauth's own pages, can have this name."""
    return _NAME.fullmatch(text) is not None and text not in _ACTORS and _USER_ID.fullmatch(text) is None


def is_own_name(text: str) -> bool:
    """Return whether a name is reserved for wxauth's own pages."""
    return text.startswith("wxauth")


def build_client(name: str, options: Mapping[str, Any], *, stored: Client | None = None) -> Client:
    """Return a client with these fields of `Client`. An absent field means the same as null, false or an empty list.

    A value that the `stored` client already has is not checked by itself, because it might break a rule that was added
    later.

    Raises: WrongClient, if the options break a rule.
    """
    for field, check in _CHECKS.items():
        value = options.get(field)
        is_unchanged = stored is not None and value == getattr(stored, field)
        if value is not None and not is_unchanged:
            try:
                check(value)
            except WrongValue as exc:
                raise WrongClient(field, exc.text) from None
    values = {field: value for field, value in options.items() if value}
    for field in _URI_FIELDS:
        if field in values:
            values[field] = list(dict.fromkeys(values[field]))  # each URI once, in the given order
    client = Client(**{"scopes": [], **values, "name": name})  # the field `scopes` has no default
    return _as_site(client) if _makes_a_site(values) else _as_service(client)


def change_client(client: Client, changes: Mapping[str, Any]) -> Client:
    """Return a copy of the client with the new values in `changes`.

    Raises: WrongClient, if the changed client breaks a rule, or if the change is not allowed.
    """
    after: dict[str, Any] = {**client.model_dump(), **changes}
    # If a confidential client became public, its requests would need no secret. Then an attacker who has a refresh
    # token of a session that was opened with the secret could use it without the secret. The reverse change is refused,
    # too, because a public client has no secret that its requests could contain.
    if bool(after["is_public"]) != client.is_public:
        raise WrongClient("is_public", _("can't be changed. Remove the client and add it again"))
    if client.is_site and not _makes_a_site(after):
        raise WrongClient(
            "redirect_uris",
            _(
                "can be empty only with the device grant or id_tokens for phones, because the client would otherwise "
                "no longer be a site"
            ),
        )
    return build_client(client.name, after, stored=client)


def _makes_a_site(options: Mapping[str, Any]) -> bool:
    return any(options.get(field) for field in _SITE_MAKING_FIELDS)


def _as_site(client: Client) -> Client:
    _check_scopes(client, (*Scope, *SITE_SCOPE_NAMES))
    site_scopes = [scope for scope in SITE_SCOPE_NAMES if scope in client.scopes] or DEFAULT_SITE_SCOPES
    _check_site(client, site_scopes)
    return client.model_copy(
        update={
            "title": client.title or client.name,
            "id_token_alg": client.id_token_alg or DEFAULT_ID_TOKEN_ALG,
            "scopes": [*service_scopes_in(client.scopes), *site_scopes],
        }
    )


def _as_service(client: Client) -> Client:
    _check_scopes(client, tuple(Scope))
    for field in _SITE_FIELDS:
        if getattr(client, field) != Client.model_fields[field].default:
            raise WrongClient(
                field,
                _(
                    "is only for sites. A site is a client with a redirect URI, the device grant or id_tokens for "
                    "phones"
                ),
            )
    return client.model_copy(update={"scopes": service_scopes_in(client.scopes) or list(DEFAULT_SCOPES)})


def _check_scopes(client: Client, known: Collection[str]) -> None:
    for scope in client.scopes:
        if scope not in known:
            if scope in SITE_SCOPE_NAMES:
                raise WrongClient("scopes", _("{scope} is only for sites", scope=scope))
            raise WrongClient("scopes", _("must be chosen from {scopes}", scopes=", ".join(known)))


def _check_site(client: Client, site_scopes: Collection[str]) -> None:
    if client.is_public:
        _check_public_site(client)
    if not client.redirect_uris:
        _check_site_without_redirects(client)
    if client.near:
        _check_near_site(client)
    _check_addresses(client, client.claims or {})
    if client.phone_id_token and OPENID_SCOPE not in site_scopes:
        raise WrongClient("phone_id_token", _("requires the openid scope, because id_tokens need this scope"))
    if _FORM_OF_APP_ID.fullmatch(client.name):  # such a site could be taken for a mini-program
        raise WrongClient(
            "name", _("must not be the name of a site, because it has the form of a mini-program's app_id")
        )


def _check_addresses(client: Client, claims: Mapping[str, Any]) -> None:
    if "email" in claims and client.email_domain:
        raise WrongClient("email_domain", _("can't be used next to the claim email"))
    if "email_verified" in claims and client.omit_email_verified:
        raise WrongClient("omit_email_verified", _("can't be used together with the claim email_verified"))
    if claims.get("email_verified") and not client.i_verify_this_address:
        raise WrongClient(
            "i_verify_this_address",
            _(
                "is required by email_verified=true, because whoever can write this address can take over accounts "
                "in the product"
            ),
        )


def _check_public_site(client: Client) -> None:
    if client.device:
        raise WrongClient(
            "is_public",
            _(
                "can't be used together with the device grant, because any program could show a QR code in the "
                "client's name"
            ),
        )
    service_scopes = service_scopes_in(client.scopes)
    if service_scopes:
        raise WrongClient("scopes", _("{scope} is only for services with a secret", scope=service_scopes[0]))
    if client.pkce == "optional":
        raise WrongClient("pkce", _("must remain required, because a public client has no secret"))


def _check_site_without_redirects(client: Client) -> None:
    if client.logout_uris:
        raise WrongClient("logout_uris", _("must be empty if there is no redirect URI"))
    if client.sso:
        raise WrongClient(
            "sso", _("requires a redirect URI, because a device has no browser login that it could share")
        )
    if client.link:
        raise WrongClient(
            "link", _("requires a redirect URI, because it only concerns sites that users open in a phone's browser")
        )


def _check_near_site(client: Client) -> None:
    if client.sso:
        raise WrongClient(
            "sso", _("can't be used together with near, which requires a phone at each login. Choose one of them")
        )
    if client.link:
        raise WrongClient(
            "link",
            _("can't be used together with near, because the browser and WeChat on a phone may use different networks"),
        )
    if client.phone_id_token:
        raise WrongClient(
            "phone_id_token",
            _(
                "can't be used together with near, because there is no browser whose network could be compared with "
                "the phone's"
            ),
        )


def service_scopes_in(scopes: Collection[str]) -> list[Scope]:
    """Return those of the given scopes that a service can have, each once, in the order of `Scope`."""
    return [scope for scope in Scope if scope in scopes]
