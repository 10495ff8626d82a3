"""The parts of the service."""

from dataclasses import dataclass, field, replace

import pytest

from tests.world import Stage
from wxauth.core.background import Background
from wxauth.core.services import Parts


@dataclass(slots=True)
class Closing:
    failure: Exception | None = None
    is_closed: bool = field(init=False, default=False)

    async def aclose(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.is_closed = True


async def test_a_part_that_cannot_be_closed_leaves_no_other_part_open(stage: Stage) -> None:
    parts = [Closing(OSError("reset")), Closing(), Closing()]
    await replace(stage.services, closing=[parts[:2], parts[2:]]).aclose()
    assert [each.is_closed for each in parts] == [False, True, True]
    assert [line["part"] for line in stage.logged("not_closed")] == ["Closing"]


def test_a_part_that_other_parts_may_use_is_not_replaced() -> None:
    parts = Parts()
    used = parts[Background]
    with pytest.raises(ValueError, match="Background already exists"):
        parts.make(Background, farewell_seconds=2.0)
    assert parts[Background] is used
