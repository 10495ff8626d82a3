"""The attributes of users, and the merge patches (RFC 7396) that change them.

The attributes of a user are a JSON object with the operator's facts about the user, for example `{"tier": "gold"}`.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, RootModel
from pydantic_core import from_json, to_json

from wxauth.core.database import Transaction
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.i18n import lazy_gettext as _
from wxauth.settings.roles import ATTRIBUTE_NAME
from wxauth.terminal import WrongValue
from wxauth.users.user_queries import WRITE_ATTRIBUTES, read_attributes

MAX_BYTES: Final = 2048
"""The size limit of a user's attributes, in bytes of compact JSON."""
MAX_NAMES: Final = 32
"""The largest number of attributes of a user."""
MAX_DEPTH: Final = 4
"""The largest depth to which lists and objects in a value can be nested."""

Attributes = Mapping[str, Any]
"""The attributes of a user, or a merge patch for them, by name. The values are JSON values."""


class WrongAttributes(WrongValue):
    """The error for a merge patch that breaks a rule, or whose result breaks one. The text states the rule."""


def check_patch(patch: Attributes) -> None:
    """Check the names and the values in a merge patch. Raises: WrongAttributes, if one of them breaks a rule."""
    if not all(ATTRIBUTE_NAME.fullmatch(name) for name in patch):
        raise WrongAttributes(_("must have names of 1 to 32 characters (a-z, 0-9 and _) that begin with a letter"))
    for value in patch.values():
        _check_value(value, depth=0)


def patched(attributes: Attributes, patch: Attributes) -> dict[str, Any]:
    """Return the attributes after a checked merge patch (RFC 7396).

    Raises: WrongAttributes, if the result has too many names or bytes.
    """
    after: dict[str, Any] = _merged(attributes, patch)
    if len(after) > MAX_NAMES:
        raise WrongAttributes(_("must contain at most {n} names in total", n=MAX_NAMES))
    if _stored_size(after) > MAX_BYTES:
        raise WrongAttributes(_("must be at most {n} bytes in total as compact JSON", n=MAX_BYTES))
    return after


def typed_attribute(text: str) -> Any:
    """Return the value of an attribute or a claim that an operator has given as text.

    The value is the parsed JSON if the text is JSON, and otherwise the text itself. For example, `true` becomes a
    boolean, but `gold` is not JSON, so it remains a text.
    """
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return text


def changed_names(before: Attributes, after: Attributes) -> list[str]:
    """Return the sorted names of the attributes whose values differ before and after a change."""
    names = before.keys() | after.keys()
    return sorted(name for name in names if _comparable(before, name) != _comparable(after, name))


async def patch_attributes(
    transaction: Transaction, user_id: UUID, patch: Attributes, *, by: Actor, now: datetime
) -> bool:
    """Apply a checked merge patch to a user whom the transaction has locked, and record the change.

    Return whether anything has changed.

    Raises: WrongAttributes, if the result has too many names or bytes.
    """
    before = await read_attributes(transaction, user_id)
    return await _store(transaction, user_id, before, patched(before, patch), by=by, now=now)


async def add_missing_attributes(
    transaction: Transaction, user_id: UUID, attributes_of_other: Attributes, *, by: Actor, now: datetime
) -> None:
    """Give a locked user those attributes of another user that the locked user lacks, and record the change.

    If the result would have too many names or bytes, add nothing, because a merge must not fail for this reason.
    """
    before = await read_attributes(transaction, user_id)
    try:
        after = patched({**attributes_of_other, **before}, {})  # the empty patch only checks the limits
    except WrongAttributes:
        return
    await _store(transaction, user_id, before, after, by=by, now=now)


async def _store(
    transaction: Transaction, user_id: UUID, before: Attributes, after: Attributes, *, by: Actor, now: datetime
) -> bool:
    """If the attributes of a locked user have changed, store them, and record the names of those that have changed.

    Return whether they have changed.
    """
    names = changed_names(before, after)
    if not names:
        return False
    await transaction.run(WRITE_ATTRIBUTES, user_id=user_id, attributes=after)
    data = {"names": names}
    await record_event(transaction, EventType.ATTRIBUTES_CHANGED, by=by, at=now, user_id=user_id, data=data)
    return True


def _merged(target: Any, patch: Any) -> Any:
    """Return the result of a merge patch (RFC 7396, section 2)."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _check_value(value: Any, *, depth: int) -> None:
    """Check a value that is inside `depth` lists and objects. Raises: WrongAttributes, if the value breaks a rule."""
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise WrongAttributes(_("must not contain lone surrogates")) from None
            if "\0" in value:
                raise WrongAttributes(_("must not contain U+0000"))
        case bool() | None:
            pass
        case int() | float():
            try:
                is_finite = isfinite(value)
            except OverflowError:
                is_finite = False
            if not is_finite:
                raise WrongAttributes(_("must not contain a number outside the range of a double"))
        case _:
            if depth == MAX_DEPTH:
                raise WrongAttributes(_("must not be nested more than {n} levels deep", n=MAX_DEPTH))
            # The names inside an object are texts, so the rules for texts apply to them, too.
            parts = [*value, *value.values()] if isinstance(value, Mapping) else value
            for part in parts:
                _check_value(part, depth=depth + 1)


def _stored_size(attributes: Attributes) -> int:
    """Return the size, in bytes, of the attributes as compact JSON with numbers as PostgreSQL writes them.

    PostgreSQL writes no exponents. For example, it writes 1e300 as 301 digits.
    """
    size = len(to_json(attributes))
    for number in _floats_in(attributes):
        without_exponent = format(Decimal(repr(number)), "f")
        size += max(0, len(without_exponent) - len(to_json(number)))
    return size


def _floats_in(value: Any) -> Iterator[float]:
    """Yield the floats in a value, and in its lists and objects."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping | list):
        parts = value.values() if isinstance(value, Mapping) else value
        for part in parts:
            yield from _floats_in(part)


def _comparable(attributes: Attributes, name: str) -> str | None:
    """Return an attribute's value as JSON with sorted keys, for comparison; None if there is no such attribute.

    Python's own comparison of the values is not exact enough, because in Python 1 equals True.
    """
    return json.dumps(attributes[name], sort_keys=True) if name in attributes else None


def _checked_patch(patch: dict[str, Any]) -> dict[str, Any]:
    """Check the merge patch of a request, and return it unchanged. Raises: WrongAttributes, if it breaks a rule."""
    check_patch(patch)
    patched({}, patch)  # raises an error if the values that the patch sets are already too many or too large
    return patch


AttributesPatch = Annotated[dict[str, Any], AfterValidator(_checked_patch)]
"""A merge patch in a request for a user's attributes. Validation checks the names, the values and the size."""
ShownAttributes = Annotated[
    dict[str, Any], Field(description="The operator's own facts about the user.", examples=[{"tier": "gold"}])
]


class AttributesRequest(RootModel[AttributesPatch]):
    """A merge patch (RFC 7396) of a user's attributes. The value null removes an attribute."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tier": "gold", "trial": None}]})
