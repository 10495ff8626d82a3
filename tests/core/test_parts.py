"""Parts are put together by the types of their fields."""

import pytest

from wxauth.server.core.services import Parts, part


class Kept:
    """A part that is given."""


@part
class Lower:
    """A part of a part that is given, and of a number."""

    kept: Kept
    size: int = 3


@part
class Upper:
    """A part of a part."""

    lower: Lower
    kept: Kept


def test_a_part_is_made_once_of_the_parts_that_its_fields_name() -> None:
    kept = Kept()
    parts = Parts({Kept: kept})
    upper = parts[Upper]
    assert upper is parts[Upper]
    assert upper.lower is parts[Lower]
    assert upper.kept is upper.lower.kept is kept
    assert upper.lower.size == 3


def test_a_part_is_made_of_what_is_given_rather_than_of_the_others() -> None:
    own = Kept()
    parts = Parts({Kept: Kept()})
    assert parts.make(Lower, kept=own, size=5).kept is own
    assert parts[Upper].lower.size == 5


def test_a_part_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(KeyError):
        Parts()[Kept]
    with pytest.raises(TypeError, match="kept"):
        Parts()[Upper]
