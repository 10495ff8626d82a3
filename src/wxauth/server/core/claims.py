"""The operator's own claims in tokens: a template, compiled once, which each token fills with facts about its user."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from pydantic_core import to_json

from wxauth.server.core.logs import get_logger
from wxauth.server.core.terminal import WrongValue
from wxauth.server.core.users import ATTRIBUTE_NAME, UserInSession
from wxauth.texts import has_too_many_containers

log = get_logger()

RESERVED_CLAIMS: Final = frozenset(
    {
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "client_id", "app_id", "openid", "scope", "roles"),
        *("external_id", "auth_time", "nonce", "at_hash", "c_hash", "s_hash", "acr", "amr", "azp", "cnf", "act"),
        *("may_act", "events", "name", "picture", "updated_at", "email", "email_verified", "phone_number"),
        "phone_number_verified",
    }
)
"""The claims with a meaning of their own, which no template may have."""
MAX_TEMPLATE: Final = 1024
"""Bytes of a template as compact JSON."""
MAX_ADDED: Final = 3 * 1024
"""Bytes that a template may add to one token, as compact JSON: guards accept tokens of 8,192 bytes."""
MAX_CONTAINERS: Final = 56
"""Objects and lists in that JSON: guards accept 64, of which a token has some itself."""

_ATTRIBUTE: Final = "attributes."

Template = Mapping[str, Any]
Fill = Callable[[UserInSession, bool], object]
"""The value for a user, and for whether the token may have roles. None: no value."""
_FACTS: Final[Mapping[str, Fill]] = {
    "user.id": lambda user, _: str(user.id),
    "user.roles": lambda user, sees_roles: (user.roles if sees_roles else None) or None,
    "user.external_id": lambda user, _: user.external_id,
    "user.unionid": lambda user, _: user.unionid,
    "app_id": lambda user, _: user.app_id,
    "openid": lambda user, _: user.openid,
}


def check_claims(template: Template) -> None:
    """Check a template. Raises: ValueError, with its rule."""
    if reserved := sorted(RESERVED_CLAIMS & template.keys()):
        raise WrongValue("must not have the claim {claim}, which has a meaning of its own", claim=reserved[0])
    if "" in template:
        raise WrongValue("must be without an empty name")
    text = _json(template)
    if b"\\u0000" in text.replace(b"\\\\", b""):  # PostgreSQL cannot store it
        raise WrongValue("must be without U+0000")
    if len(text) > MAX_TEMPLATE:
        raise WrongValue("must be at most {n} bytes", n=MAX_TEMPLATE)
    if has_too_many_containers(text.decode(), MAX_CONTAINERS):
        raise WrongValue("must have at most {n} lists and objects", n=MAX_CONTAINERS)
    _compiled(template)


class ClaimsTemplate:
    """A template of claims, compiled."""

    def __init__(self, template: Template) -> None:
        self._fill = _compiled(template)

    def filled(self, user: UserInSession, *, sees_roles: bool) -> dict[str, object]:
        """The claims for a user's token; none if they are too much for one, so that no guard refuses it."""
        claims = cast(dict[str, object], self._fill(user, sees_roles))
        text = to_json(claims)
        if len(text) > MAX_ADDED or has_too_many_containers(text.decode(), MAX_CONTAINERS):
            log.error("claims_left_out", user_id=user.id, app_id=user.app_id, reason="too much for one token")
            return {}
        return claims


def _compiled(value: object) -> Fill:
    """Raises: ValueError, for a fact that is not known."""
    match value:
        case str() if value.startswith("$$"):
            return _constant(value[1:])
        case str() if value.startswith("$"):
            return _fact(value[1:])
        case Mapping():
            return _object({name: _compiled(part) for name, part in value.items()})
        case list():
            return _list([_compiled(part) for part in value])
        case int() | float() if abs(value) > sys.float_info.max or value != value:
            raise WrongValue("must have no number beyond a double's range")
        case _:
            return _constant(value)


def _constant(value: object) -> Fill:
    return lambda _user, _sees_roles: value


def _object(members: Mapping[str, Fill]) -> Fill:
    fills = tuple(members.items())
    return lambda user, sees_roles: {
        name: value for name, fill in fills if (value := fill(user, sees_roles)) is not None
    }


def _list(items: Sequence[Fill]) -> Fill:
    # An empty list is no value.
    return lambda user, sees_roles: [value for fill in items if (value := fill(user, sees_roles)) is not None] or None


def _fact(name: str) -> Fill:
    if name in _FACTS:
        return _FACTS[name]
    attribute = name.removeprefix(_ATTRIBUTE)
    if attribute != name and ATTRIBUTE_NAME.fullmatch(attribute):
        return lambda user, _: None if (value := (user.attributes or {}).get(attribute)) == [] else value
    facts = ", ".join(f"${fact}" for fact in _FACTS)
    raise WrongValue("must have no other facts than {facts}, $attributes.NAME", facts=facts)


def _json(value: object) -> bytes:
    try:
        return to_json(value, inf_nan_mode="strings")
    except (ValueError, UnicodeError):
        raise WrongValue("must be JSON") from None
