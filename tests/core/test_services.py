"""The parts of the service."""

import pytest

from wxauth.core.background import Background
from wxauth.core.services import Parts


def test_a_part_that_other_parts_may_use_is_not_replaced() -> None:
    parts = Parts()
    used = parts[Background]
    with pytest.raises(ValueError, match="Background already exists"):
        parts.make(Background, farewell=2.0)
    assert parts[Background] is used
