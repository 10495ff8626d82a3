"""The operator's own claims about a user, made from a template and facts about the user.

Access tokens contain the operator's claims for the app or for the site. For a site, its id_tokens and the responses of
`/v1/userinfo` contain these claims, too.
"""

from functools import partial
from typing import Final, cast

from pydantic_core import to_json

from wxauth.core.logs import get_logger
from wxauth.core.users import UserInSession
from wxauth.settings.claims import ATTRIBUTE_PREFIX, FACTS, MAX_CONTAINERS, Template, replace_facts
from wxauth_guard.json_texts import has_too_many_containers

MAX_ADDED_BYTES: Final = 3 * 1024
"""The largest number of bytes of compact JSON that a template may add to one token.

Guards accept tokens of at most 8,192 bytes.
"""

log = get_logger()


def filled_claims(template: Template | None, user: UserInSession, *, may_contain_roles: bool) -> dict[str, object]:
    """Fill the template of the operator's own claims for a token of this user, or for a response of `/v1/userinfo`.

    `may_contain_roles` says whether the claims may contain the user's roles. Return no claims if they are too large, or
    contain too many lists and objects, because guards would refuse the token.
    """
    if not template:
        return {}
    # `replace_facts` returns a dictionary for a dictionary, but its type does not say so.
    value_of = partial(_value_of_fact, user=user, may_contain_roles=may_contain_roles)
    claims = cast(dict[str, object], replace_facts(template, value_of))
    encoded = to_json(claims)
    if len(encoded) > MAX_ADDED_BYTES or has_too_many_containers(encoded.decode(), MAX_CONTAINERS):
        log.error("claims_left_out", user_id=user.id, app_id=user.app_id, reason="too much for one token")
        return {}
    return claims


def _value_of_fact(fact: str, *, user: UserInSession, may_contain_roles: bool) -> object:
    """Return the value of a fact about the user, for example of `user.roles` or `attributes.level`.

    Return None if the user has no value, if the value is an empty list, or if the claims may not contain the fact.
    `replace_facts` then leaves the entry out of the claims.
    """
    if fact == "user.id":
        return str(user.id)
    if fact == "user.roles" and not may_contain_roles:
        return None
    if fact in FACTS:
        value = getattr(user, fact.removeprefix("user."))
    else:
        value = (user.attributes or {}).get(fact.removeprefix(ATTRIBUTE_PREFIX))
    return None if value == [] else value
