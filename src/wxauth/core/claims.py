"""The operator's own claims in access tokens: a template that is filled with facts about the user of each token."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from pydantic_core import to_json

from wxauth.core.logs import get_logger
from wxauth.core.roles import ATTRIBUTE_NAME
from wxauth.core.setting_types import checked, json_like
from wxauth.core.terminal import WrongValue
from wxauth.i18n import lazy_gettext as _
from wxauth_guard.texts import has_too_many_containers

# Importing this class loads SQLAlchemy. Without it, the settings take 30 MB less.
if TYPE_CHECKING:
    from wxauth.core.users import UserInSession

log = get_logger()

RESERVED_CLAIMS: Final = frozenset(
    {
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "client_id", "app_id", "openid", "scope", "roles"),
        *("external_id", "auth_time", "nonce", "at_hash", "c_hash", "s_hash", "acr", "amr", "azp", "cnf", "act"),
        *("may_act", "events", "name", "picture", "updated_at", "email", "email_verified", "phone_number"),
        "phone_number_verified",
    }
)
"""The claims that have a defined meaning. A template must not contain them."""
MAX_TEMPLATE: Final = 1024
"""The size limit of a template, in bytes of compact JSON."""
MAX_ADDED: Final = 3 * 1024
"""The largest number of bytes of compact JSON that a template may add to one token.

Guards accept tokens of 8,192 bytes.
"""
MAX_CONTAINERS: Final = 56
"""The largest number of objects and lists that a template may add to one token.

Guards accept 64 in a token, and some of them are its own.
"""

_ATTRIBUTE: Final = "attributes."

Template = Mapping[str, Any]
_FACTS: Final[Mapping[str, Callable[["UserInSession", bool], object]]] = {
    "user.id": lambda user, _: str(user.id),
    "user.roles": lambda user, sees_roles: (user.roles if sees_roles else None) or None,
    "user.external_id": lambda user, _: user.external_id,
    "user.unionid": lambda user, _: user.unionid,
    "app_id": lambda user, _: user.app_id,
    "openid": lambda user, _: user.openid,
}
"""The function for each fact, which takes the user, and whether the token may contain roles.

It returns None if there is no value.
"""


def check_claims(template: Template) -> None:
    """Check a template. Raises: ValueError, with the rule that it breaks."""
    if reserved := sorted(RESERVED_CLAIMS & template.keys()):
        raise WrongValue(_("must not contain the claim {claim}, which has a meaning of its own", claim=reserved[0]))
    if "" in template:
        raise WrongValue(_("must not contain an empty name"))
    try:
        text = to_json(template, inf_nan_mode="strings")
    except (ValueError, UnicodeError):
        raise WrongValue(_("must be JSON")) from None
    # PostgreSQL cannot store it.
    if b"\\u0000" in text.replace(b"\\\\", b""):
        raise WrongValue(_("must not contain U+0000"))
    if len(text) > MAX_TEMPLATE:
        raise WrongValue(_("must be up to {n} bytes", n=MAX_TEMPLATE))
    if has_too_many_containers(text.decode(), MAX_CONTAINERS):
        raise WrongValue(_("must contain at most {n} lists and objects", n=MAX_CONTAINERS))
    _filled(template, _check_fact)


def filled_claims(template: Template | None, user: "UserInSession", *, sees_roles: bool) -> dict[str, object]:
    """Return the claims for a user's token.

    The result is empty if the claims are too large for a token, because guards would refuse the token.
    """
    if not template:
        return {}
    claims = cast(dict[str, object], _filled(template, partial(_value, user, sees_roles)))
    text = to_json(claims)
    if len(text) > MAX_ADDED or has_too_many_containers(text.decode(), MAX_CONTAINERS):
        log.error("claims_left_out", user_id=user.id, app_id=user.app_id, reason="too much for one token")
        return {}
    return claims


def _filled(value: object, take: Callable[[str], object]) -> object:
    """Replace the facts in a part of a template by their values.

    The value None removes its entry, and so does an empty list.

    Raises: ValueError, for a number that JavaScript cannot read; and whatever `take` raises.
    """
    if isinstance(value, str):
        if not value.startswith("$"):
            return value
        return value[1:] if value.startswith("$$") else take(value[1:])
    if isinstance(value, dict):
        return {name: found for name, part in value.items() if (found := _filled(part, take)) is not None}
    if isinstance(value, list):
        return [found for part in value if (found := _filled(part, take)) is not None] or None
    if isinstance(value, int | float) and (abs(value) > sys.float_info.max or value != value):
        raise WrongValue(_("must not contain a number beyond the range of a double"))
    return value


def _value(user: "UserInSession", sees_roles: bool, fact: str) -> object:
    if fact in _FACTS:
        return _FACTS[fact](user, sees_roles)
    value = (user.attributes or {}).get(fact.removeprefix(_ATTRIBUTE))
    return None if value == [] else value


def _check_fact(fact: str) -> None:
    if fact not in _FACTS and not (fact.startswith(_ATTRIBUTE) and ATTRIBUTE_NAME.fullmatch(fact, len(_ATTRIBUTE))):
        facts = ", ".join(f"${known}" for known in _FACTS)
        raise WrongValue(_("must refer only to {facts} and $attributes.NAME", facts=facts))


Claims = Annotated[dict[str, Any], checked(check_claims)]
JsonClaims = json_like('{"role": "authenticated"}')
