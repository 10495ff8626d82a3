"""The operator's own claims about a user, for access tokens, id_tokens and `/v1/userinfo`."""

from functools import partial
from typing import Final, cast

from pydantic_core import to_json

from wxauth.core.logs import get_logger
from wxauth.core.users import UserInSession
from wxauth.settings.claims import ATTRIBUTE_PREFIX, FACTS, MAX_CONTAINERS, Template, replace_facts
from wxauth_guard.json_texts import has_too_many_containers

MAX_ADDED_BYTES: Final = 3 * 1024  # of compact JSON: guards accept tokens of at most 8,192 bytes

log = get_logger()


def filled_claims(template: Template | None, user: UserInSession, *, may_contain_roles: bool) -> dict[str, object]:
    """Fill the template of the operator's own claims for a token of this user, or for a response of `/v1/userinfo`.

    Return no claims if they are too large, or contain too many lists and objects, because guards would refuse the
    token.
    """
    if not template:
        return {}
    # `replace_facts` returns a dictionary for a dictionary, but its type does not say so.
    value_of = partial(_value_of_fact, user=user, may_contain_roles=may_contain_roles)
    claims = cast(dict[str, object], replace_facts(template, value_of))
    email = claims.get("email")
    if not isinstance(email, str) or not email:  # an attribute can be any JSON, or absent
        claims.pop("email", None)
        claims.pop("email_verified", None)
    encoded = to_json(claims)
    if len(encoded) > MAX_ADDED_BYTES or has_too_many_containers(encoded.decode(), MAX_CONTAINERS):
        log.error("claims_left_out", user_id=user.id, app_id=user.app_id, reason="too much for one token")
        return {}
    return claims


# `replace_facts` leaves an entry out for None.
def _value_of_fact(fact: str, *, user: UserInSession, may_contain_roles: bool) -> object:
    if fact == "user.id":
        return str(user.id)
    if fact == "user.roles" and not may_contain_roles:
        return None
    if fact in FACTS:
        value = getattr(user, fact.removeprefix("user."))
    else:
        value = (user.attributes or {}).get(fact.removeprefix(ATTRIBUTE_PREFIX))
    return None if value == [] else value
