"""A direct route takes what it can serve, and refuses to be declared with more; a shortcut leads to it."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from wxauth.errors import WxAuthError
from wxauth.server.web.direct import DirectRoute, Shortcut


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


async def fixed() -> str:
    return "fixed"


async def wild(word: str) -> str:
    return f"wild {word}"


async def broken() -> None:
    raise WxAuthError("broken")


@pytest.mark.parametrize(
    ("path", "answer", "by_shortcut"),
    [
        ("/fixed", '"fixed"', True),
        ("/taken/fixed", '"wild fixed"', False),  # a route before it takes this path
        ("/broken", "told by the app", False),
        ("/nowhere", '{"detail":"Not Found"}', False),
        ("/under/fixed", '"fixed"', False),
    ],
)
async def test_a_shortcut_answers_as_the_app_does(path: str, answer: str, by_shortcut: bool) -> None:
    api = FastAPI()
    for route, endpoint in {"/fixed": fixed, "/taken/{word}": wild, "/taken/fixed": fixed, "/broken": broken}.items():
        api.router.routes.append(DirectRoute(route, endpoint, include_in_schema=False))
    api.add_exception_handler(WxAuthError, lambda _request, _error: PlainTextResponse("told by the app"))
    asked = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await api(scope, receive, send)

    for served in (api, Shortcut(app, api.routes)):
        root_path = "/under" if path.startswith("/under") else ""
        transport = ASGITransport(served, root_path=root_path)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get(path)).text == answer
    assert asked == ([] if by_shortcut else [path])
