"""The template of the operator's own claims in access tokens, and the rules for the template.

A template can refer to facts about the user.
"""

import sys
from collections.abc import Callable, Mapping
from math import isnan
from typing import Annotated, Any, Final

from pydantic_core import to_json

from wxauth.i18n import lazy_gettext as _
from wxauth.settings.roles import ATTRIBUTE_NAME
from wxauth.settings.types import checked, json_like
from wxauth.terminal import WrongValue
from wxauth_guard.json_texts import has_too_many_containers

RESERVED_CLAIMS: Final = frozenset(
    """
    iss sub aud exp nbf iat jti sid client_id app_id openid scope roles external_id auth_time nonce at_hash c_hash
    s_hash acr amr azp cnf act may_act events name picture updated_at email email_verified phone_number
    phone_number_verified
    """.split()  # noqa: SIM905 - a list would need a line for each name
)
"""The claims that a template must not set, because they have a defined meaning."""
MAX_TEMPLATE_BYTES: Final = 1024
"""The largest number of bytes of compact JSON in a template."""
MAX_CONTAINERS: Final = 56
"""The largest number of objects and lists that a template may add to one token.

A guard accepts a token with at most 64 objects and lists, some of which wxauth's own claims need.
"""
FACTS: Final = ("user.id", "user.roles", "user.external_id", "user.unionid", "app_id", "openid")
"""The facts about a user that a template may refer to, besides the user's attributes."""
ATTRIBUTE_PREFIX: Final = "attributes."
"""The beginning of the name of a fact that is one of the user's attributes, such as `attributes.tier`."""

Template = Mapping[str, Any]
"""The values of the operator's claims, by the names of the claims.

A string that begins with `$` refers to a fact, for example `$user.id`. A string that begins with `$$` is used without
its first `$`, so it refers to nothing.
"""


def check_claims(template: Template) -> None:
    """Check a template of claims. Raises: WrongValue, whose text is the rule that the template breaks."""
    if reserved := sorted(RESERVED_CLAIMS & template.keys()):
        raise WrongValue(_("must not contain the claim {claim}, which is reserved", claim=reserved[0]))
    if "" in template:
        raise WrongValue(_("must not contain an empty name"))
    try:
        text = to_json(template, inf_nan_mode="strings")  # `replace_facts` refuses infinity and NaN below
    except (ValueError, UnicodeError):
        raise WrongValue(_("must be JSON")) from None
    # PostgreSQL cannot store U+0000 in a jsonb column. Escaped backslashes are removed first, because the text after
    # such a pair is not an escape.
    if b"\\u0000" in text.replace(b"\\\\", b""):
        raise WrongValue(_("must not contain U+0000"))
    if len(text) > MAX_TEMPLATE_BYTES:
        raise WrongValue(_("must be up to {n} bytes", n=MAX_TEMPLATE_BYTES))
    if has_too_many_containers(text.decode(), MAX_CONTAINERS):
        raise WrongValue(_("must contain no more than {n} arrays and objects in total", n=MAX_CONTAINERS))
    replace_facts(template, _check_fact)  # only for its errors


def replace_facts(value: object, value_of: Callable[[str], object]) -> object:
    """Return a template, or a part of one, with the values of facts in place of the references to these facts.

    `value_of` gets the name of a fact without `$`, and returns the fact's value. An entry of an object, or an element
    of a list, is removed if it is or becomes None. A list that is or becomes empty counts as None, but an empty object
    stays.

    Raises: WrongValue, if a number is NaN, or is outside the range of a double; the errors of `value_of`.
    """
    if isinstance(value, str):
        if not value.startswith("$"):
            return value
        return value[1:] if value.startswith("$$") else value_of(value[1:])
    if isinstance(value, dict):
        entries = {name: replace_facts(part, value_of) for name, part in value.items()}
        return {name: part for name, part in entries.items() if part is not None}
    if isinstance(value, list):
        parts = [replace_facts(part, value_of) for part in value]
        return [part for part in parts if part is not None] or None
    if isinstance(value, int | float) and (abs(value) > sys.float_info.max or isnan(value)):
        raise WrongValue(_("must not contain a number outside the range of a double"))
    return value


def _check_fact(fact: str) -> None:
    if fact in FACTS:
        return
    if fact.startswith(ATTRIBUTE_PREFIX) and ATTRIBUTE_NAME.fullmatch(fact.removeprefix(ATTRIBUTE_PREFIX)):
        return
    facts = ", ".join(f"${known}" for known in FACTS)
    raise WrongValue(_("must refer only to {facts} and $attributes.NAME", facts=facts))


Claims = Annotated[dict[str, Any], checked(check_claims)]
"""A checked template of claims."""
JsonClaims = json_like('{"role": "authenticated"}')
"""A validator that parses a template in JSON."""
