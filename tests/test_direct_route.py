"""A direct route takes what it can serve, and refuses to be declared with more."""

from typing import Annotated, Any

import pytest
from fastapi import Depends
from starlette.requests import Request

from wxauth.web.direct import DirectRoute


async def anything(request: Request) -> None: ...


async def of_two(request: Request, other: int) -> int:
    return other


async def query(limit: int) -> None: ...


async def with_more(value: Annotated[int, Depends(of_two)]) -> None: ...


@pytest.mark.parametrize(
    ("endpoint", "declared"),
    [
        (anything, {"dependencies": [Depends(anything)]}),  # a guard that would not run
        (anything, {"status_code": 201}),
        (query, {}),
        (with_more, {}),
    ],
)
@pytest.mark.parametrize("path", ["/", "/{value}"])
def test_what_would_be_dropped_in_silence_is_refused(path: str, endpoint: Any, declared: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        DirectRoute(path, endpoint, **declared)


def test_what_it_can_serve_is_taken() -> None:
    DirectRoute("/", anything, status_code=204)
