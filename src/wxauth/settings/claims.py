"""The template of the operator's own claims in tokens, which can refer to facts about the user, and its rules."""

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final

from pydantic_core import to_json

from wxauth import i_json
from wxauth.i18n import WrongValue, lazy_gettext as _
from wxauth.settings.roles import ATTRIBUTE_NAME
from wxauth.settings.types import checked, json_like
from wxauth_guard.json_texts import has_too_many_containers

# The case of a name doesn't count, because some libraries, such as Go's encoding/json, read `ROLES` and `roleſ` as
# `roles`.
RESERVED_CLAIMS: Final = frozenset(
    """
    iss sub aud exp nbf iat jti sid client_id app_id openid scope roles external_id auth_time nonce at_hash c_hash
    s_hash acr amr azp cnf act may_act events name picture updated_at email email_verified phone_number
    phone_number_verified
    """.split()  # noqa: SIM905 - a list would need a line for each name
)
MAX_TEMPLATE_BYTES: Final = 1024  # of compact JSON
# A guard accepts 64 objects and lists, some of which wxauth's own claims need.
MAX_CONTAINERS: Final = 56
# A template can also refer to the user's attributes.
FACTS: Final = ("user.id", "user.roles", "user.external_id", "user.unionid", "app_id", "openid")
ATTRIBUTE_PREFIX: Final = "attributes."

Template = Mapping[str, Any]
"""The values of the operator's claims, by the names of the claims.

A string that begins with `$` refers to a fact, for example `$user.id`. A string that begins with `$$` is used without
its first `$`, so it refers to nothing.
"""


def check_claims(template: Template, *, allowed: Collection[str] = ()) -> None:
    if reserved := sorted(name for name in template if name.casefold() in RESERVED_CLAIMS and name not in allowed):
        raise WrongValue(_("must not contain the claim {claim}, which is reserved", claim=reserved[0]))
    if "" in template:
        raise WrongValue(_("must not contain an empty name"))
    i_json.check(template)
    text = to_json(template)
    if len(text) > MAX_TEMPLATE_BYTES:
        raise WrongValue(_("must be up to {n} bytes", n=MAX_TEMPLATE_BYTES))
    if has_too_many_containers(text.decode(), MAX_CONTAINERS):
        raise WrongValue(_("must contain no more than {n} arrays and objects in total", n=MAX_CONTAINERS))
    replace_facts(template, _check_fact)  # only for its errors


def check_claims_of_client(template: Template) -> None:
    """Check the claims of a client, which can contain an address of the operator's own."""
    check_claims(template, allowed=("email", "email_verified"))
    email = template.get("email")
    is_one_fact = isinstance(email, str) and (email == "$user.external_id" or email.startswith(f"${ATTRIBUTE_PREFIX}"))
    if "email" in template and not is_one_fact:  # `check_claims` has checked the attribute's name
        raise WrongValue(_("must contain only $user.external_id or $attributes.NAME as email"))
    if "email_verified" in template and ("email" not in template or type(template["email_verified"]) is not bool):
        raise WrongValue(_("must contain email_verified only as true or false, and only next to email"))


def replace_facts(value: object, value_of: Callable[[str], object]) -> object:
    """Return a template, or a part of one, with the values of facts in place of the references to these facts.

    `value_of` gets the name of a fact without `$`. An entry of an object, or an element of a list, is removed if it is
    or becomes None. A list that is or becomes empty counts as None, but an empty object stays.
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
    return value


def _check_fact(fact: str) -> None:
    if fact in FACTS:
        return
    if fact.startswith(ATTRIBUTE_PREFIX) and ATTRIBUTE_NAME.fullmatch(fact.removeprefix(ATTRIBUTE_PREFIX)):
        return
    facts = ", ".join(f"${known}" for known in FACTS)
    raise WrongValue(_("must refer only to {facts} and $attributes.NAME", facts=facts))


Claims = Annotated[dict[str, Any], i_json.IS_I_JSON, checked(check_claims)]
JsonClaims = json_like('{"role": "authenticated"}')  # for `Claims` in an environment variable
