"""The attributes of users, and the merge patches (RFC 7396) that change them.

The attributes of a user are a JSON object with the operator's facts about the user, for example `{"tier": "gold"}`.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, RootModel
from pydantic_core import to_json

from wxauth import i_json
from wxauth.core.database import Transaction
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.i18n import WrongValue, lazy_gettext as _
from wxauth.settings.roles import ATTRIBUTE_NAME
from wxauth.users.user_queries import WRITE_ATTRIBUTES, read_attributes

MAX_BYTES: Final = 2048  # of JSON, in which PostgreSQL spells a large number with all its digits
MAX_NAMES: Final = 32
MAX_DEPTH: Final = 4

Attributes = Mapping[str, Any]
"""A user's attributes, or a merge patch for them."""


class WrongAttributes(WrongValue):
    """A merge patch, or its result, breaks the rule that the text states."""


def check_patch(patch: Attributes) -> None:
    """Check the names and the values in a merge patch. Raises: WrongValue."""
    i_json.check(patch)
    _check_form(patch)


def _check_form(patch: Attributes) -> None:
    if not all(ATTRIBUTE_NAME.fullmatch(name) for name in patch):
        raise WrongAttributes(_("must have names of 1 to 32 characters (a-z, 0-9 and _) that begin with a letter"))
    for value in patch.values():
        _check_depth(value, depth=0)


def patched(attributes: Attributes, patch: Attributes) -> dict[str, Any]:
    """Return the attributes after a checked merge patch. Raises: WrongAttributes, if they exceed a limit."""
    after: dict[str, Any] = _merged(attributes, patch)
    if len(after) > MAX_NAMES:
        raise WrongAttributes(_("must contain at most {n} names in total", n=MAX_NAMES))
    if _stored_size(after) > MAX_BYTES:
        raise WrongAttributes(_("must be at most {n} bytes in total as compact JSON", n=MAX_BYTES))
    return after


def changed_names(before: Attributes, after: Attributes) -> list[str]:
    """Return the sorted names of the attributes whose values differ."""
    names = before.keys() | after.keys()
    return sorted(name for name in names if _comparable(before, name) != _comparable(after, name))


async def patch_attributes(
    transaction: Transaction, user_id: UUID, patch: Attributes, *, by: Actor, now: datetime
) -> bool:
    """Patch a locked user. Return whether anything has changed. Raises: WrongAttributes, as `patched`."""
    before = await read_attributes(transaction, user_id)
    return await _store(transaction, user_id, before, patched(before, patch), by=by, now=now)


async def add_missing_attributes(
    transaction: Transaction, user_id: UUID, attributes_of_other: Attributes, *, by: Actor, now: datetime
) -> None:
    """Add what a locked user lacks. If the result exceeds a limit, add nothing, because a merge must not fail."""
    before = await read_attributes(transaction, user_id)
    try:
        after = patched({**attributes_of_other, **before}, {})  # the empty patch only checks the limits
    except WrongAttributes:
        return
    await _store(transaction, user_id, before, after, by=by, now=now)


async def _store(
    transaction: Transaction, user_id: UUID, before: Attributes, after: Attributes, *, by: Actor, now: datetime
) -> bool:
    names = changed_names(before, after)
    if not names:
        return False
    await transaction.run(WRITE_ATTRIBUTES, user_id=user_id, attributes=after)
    data = {"names": names}
    await record_event(transaction, EventType.ATTRIBUTES_CHANGED, by=by, at=now, user_id=user_id, data=data)
    return True


def _merged(target: Any, patch: Any) -> Any:
    """Merge as RFC 7396, section 2, says."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _check_depth(value: Any, *, depth: int) -> None:
    if not isinstance(value, Mapping | list):
        return
    if depth == MAX_DEPTH:
        raise WrongAttributes(_("must not be nested more than {n} levels deep", n=MAX_DEPTH))
    for part in value.values() if isinstance(value, Mapping) else value:
        _check_depth(part, depth=depth + 1)


def _stored_size(attributes: Attributes) -> int:
    size = len(to_json(attributes))
    for number in _floats_in(attributes):
        without_exponent = format(Decimal(repr(number)), "f")  # as PostgreSQL writes numbers: 1e300 has 301 digits
        size += max(0, len(without_exponent) - len(to_json(number)))
    return size


def _floats_in(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping | list):
        parts = value.values() if isinstance(value, Mapping) else value
        for part in parts:
            yield from _floats_in(part)


def _comparable(attributes: Attributes, name: str) -> str | None:
    # In Python, 1 equals True.
    return json.dumps(attributes[name], sort_keys=True) if name in attributes else None


def _patch_within_limits(patch: dict[str, Any]) -> dict[str, Any]:
    _check_form(patch)
    patched({}, patch)  # raises an error if the values that the patch sets are already too many or too large
    return patch


AttributesPatch = Annotated[dict[str, Any], i_json.IS_I_JSON, AfterValidator(_patch_within_limits)]
ShownAttributes = Annotated[
    dict[str, Any], Field(description="The operator's own facts about the user.", examples=[{"tier": "gold"}])
]


class AttributesRequest(RootModel[AttributesPatch]):
    """A merge patch (RFC 7396) of a user's attributes. The value null removes an attribute."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tier": "gold", "trial": None}]})
