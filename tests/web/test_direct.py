"""Direct routes refuse declarations that they can't serve, and a shortcut finds their paths."""

from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Annotated, Any, NotRequired
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, Query
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel, Field, StrictInt
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import TypedDict

from wxauth.errors import AccountDisabled, NotFound
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.settings.settings import Settings
from wxauth.web.answers import Entails
from wxauth.web.direct import DirectRequest, DirectRoute, DirectRoutes, Router, Shortcut
from wxauth_guard.errors import WxAuthError


async def anything(request: Request) -> None: ...


async def of_two(request: Request, other: int) -> int:
    return other


async def query(limit: int) -> None: ...


async def with_more(value: Annotated[int, Depends(of_two)]) -> None: ...


@pytest.mark.parametrize(
    ("endpoint", "declared"),
    [
        (anything, {"dependencies": [Depends(anything)]}),  # this guard would not run
        (anything, {"status_code": 201}),
        (query, {}),
        (with_more, {}),
    ],
)
@pytest.mark.parametrize("path", ["/", "/{value}"])
def test_an_option_that_a_direct_route_ignores_is_refused(path: str, endpoint: Any, declared: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        DirectRoute(path, endpoint, **declared)


class Word(TypedDict):
    """A word in a response."""

    word: Annotated[str, Field(examples=["hello"])]
    said_by: NotRequired[str]
    translation: str | None


class WordsQuery(BaseModel):
    """The query of a list of words."""

    limit: Annotated[int, Field(ge=1)] = 2
    language: list[str] = []


async def speaker_of(request: Request) -> str:
    return "somebody"


SpeakerDep = Annotated[
    str, Depends(speaker_of), Entails(failures=[AccountDisabled], security=[{"wxauth": []}, {"other": []}])
]


async def find_word(word_id: UUID, speaker: SpeakerDep) -> Word:
    return {"word": "hello", "said_by": speaker, "translation": None}


async def list_words(query: Annotated[WordsQuery, Query()]) -> dict[str, Any]:
    return query.model_dump()


def test_an_operation_documents_what_its_parameters_and_its_answer_entail() -> None:
    router = Router("words")
    router.get("/words/{word_id}", summary=_("Find a word"), failures=[NotFound])(find_word)
    [route] = router.routes
    codes = {code for status in (403, 404, 422, 500) for code in problems_in(route.responses[status])}
    assert codes == {"account_disabled", "not_found", "invalid_request", "internal_error"}
    wrong_id = problems_in(route.responses[422])["invalid_request"]["value"]
    assert [error["field"] for error in wrong_id["errors"]] == ["word_id"]
    assert route.responses[200]["content"]["application/json"]["example"] == {"word": "hello", "translation": None}
    assert route.openapi_extra == {"security": [{"wxauth": []}, {"other": []}]}
    assert isinstance(route.summary, Text)
    assert (route.summary, route.summary.translated("zh-CN")) == ("Find a word", "Find a word")
    router.post("/", summary=_("Measure"), response_model=Word)(measure)
    assert problems_in(router.routes[1].responses[403]).keys() == {"account_disabled"}
    assert problems_in(router.routes[1].responses[404]).keys() == {"not_found"}, "of a dependency's dependency"


async def test_a_direct_route_reads_a_query_as_fastapi_does() -> None:
    api = FastAPI()
    api.get("/by-fastapi")(list_words)
    api.router.routes.append(DirectRoute("/direct", list_words, include_in_schema=False))
    async with AsyncClient(transport=ASGITransport(api), base_url="http://test") as client:
        for query, answer in {
            "": {"limit": 2, "language": []},
            "?limit=5&language=en&language=zh&unknown=1": {"limit": 5, "language": ["en", "zh"]},
            "?limit=5&limit=7": {"limit": 7, "language": []},
        }.items():
            for path in ("/by-fastapi", "/direct"):
                assert (await client.get(path + query)).json() == answer


def problems_in(response: dict[str, Any]) -> dict[str, Any]:
    """Return the examples of a documented failure, by code."""
    return response["content"]["application/problem+json"]["examples"]


async def fixed() -> str:
    return "fixed"


async def wild(word: str) -> str:
    return f"wild {word}"


async def broken() -> None:
    raise WxAuthError("broken")


async def tell(_request: Request, _error: Exception) -> PlainTextResponse:
    return PlainTextResponse("told by the app")


@pytest.mark.parametrize(
    ("path", "answer", "is_short"),
    [
        ("/fixed", '"fixed"', True),
        ("/taken/fixed", '"wild fixed"', False),  # an earlier route handles this path
        ("/broken", "told by the app", True),
        ("/nowhere", '{"detail":"Not Found"}', False),
        ("/under/fixed", '"fixed"', False),
    ],
)
async def test_a_shortcut_answers_as_the_app_does(path: str, answer: str, is_short: bool) -> None:
    asked: list[str] = []

    class Recording(FastAPI):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            asked.append(scope["path"])
            await super().__call__(scope, receive, send)

    api = Recording()
    endpoints: list[tuple[str, Any]] = [
        ("/fixed", fixed),
        ("/taken/{word}", wild),
        ("/taken/fixed", fixed),
        ("/broken", broken),
    ]
    api.router.routes += [DirectRoute(route, endpoint, include_in_schema=False) for route, endpoint in endpoints]
    api.add_exception_handler(WxAuthError, tell)
    for served in (api, Shortcut(api, DirectRoutes(api.routes))):
        asked.clear()
        transport = ASGITransport(served, root_path="/under" if path.startswith("/under") else "")
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get(path)).text == answer
    assert asked == ([] if is_short else [path])


calls: list[str] = []


async def unit_of(request: Request) -> str:
    calls.append("unit")
    return request.query_params.get("unit", "m")


UnitDep = Annotated[str, Depends(unit_of), Entails(failures=[NotFound])]


async def height_of(unit: UnitDep) -> str:
    calls.append("height")
    return f"2 {unit}"


def width_of(*, unit: UnitDep) -> str:
    calls.append("width")
    return f"1 {unit}"


async def opened() -> AsyncIterator[str]:
    calls.append("open")
    yield "open"
    calls.append("close")


class Scale(BaseModel):
    """A request body."""

    factor: StrictInt


async def measure(
    height: Annotated[str, Depends(height_of), Entails(failures=[AccountDisabled])],
    scale: Scale,
    width: Annotated[str, Depends(width_of)],
    again: Annotated[str, Depends(unit_of, use_cache=False)],
) -> str:
    calls.append("endpoint")
    return f"{scale.factor} times {height} by {width}, {again}"


async def read_opened(one: Annotated[str, Depends(opened)]) -> str:
    calls.append("endpoint")
    return one


async def answer_of(served: Any, path: str, body: Any = None) -> Any:
    calls.clear()
    async with AsyncClient(transport=ASGITransport(served), base_url="http://test") as client:
        return (await client.post(path, json=body)).json()


def api_with(path: str, endpoint: Callable[..., Any]) -> FastAPI:
    api = FastAPI()
    api.state.services = SimpleNamespace(parts={Settings: None})
    api.router.routes.append(DirectRoute(path, endpoint, methods=["POST"], include_in_schema=False))
    return api


async def test_what_a_dependency_yields_is_closed_before_the_answer_is_sent() -> None:
    api = api_with("/opened", read_opened)

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            calls.append(message["type"])
            await send(message)

        await api(scope, receive, note)

    assert await answer_of(served, "/opened") == "open"
    assert calls[:-2] == ["open", "endpoint", "close"]


async def test_a_shared_dependency_is_found_once_and_replaced_wherever_it_is_taken() -> None:
    api = api_with("/measure", measure)

    async def unit_of_shop() -> AsyncIterator[str]:
        yield "yd"
        calls.append("closed")

    for served in (api, Shortcut(api, DirectRoutes(api.routes))):
        assert await answer_of(served, "/measure?unit=ft", {"factor": 3}) == "3 times 2 ft by 1 ft, ft"
        assert calls == ["unit", "height", "width", "unit", "endpoint"], "each after those before it"
        api.dependency_overrides = {unit_of: unit_of_shop, width_of: lambda: "nothing"}
        assert await answer_of(served, "/measure", {"factor": 3}) == "3 times 2 yd by nothing, yd"
        assert calls == ["height", "endpoint", "closed", "closed"]
        api.dependency_overrides = {}
        assert await answer_of(served, "/measure", {"factor": 3}) == "3 times 2 m by 1 m, m"


class Part(bytes):
    def __radd__(self, before: bytes) -> bytes:
        raise AssertionError("each part of a long body would be copied as often as parts follow")


async def test_the_parts_of_a_body_are_put_together_once() -> None:
    parts = iter([Part(b"a"), Part(b"b"), Part(b"c")])

    async def receive() -> dict[str, Any]:
        part = next(parts)
        return {"type": "http.request", "body": part, "more_body": part != b"c"}

    request = DirectRequest({"type": "http", "headers": []}, receive)
    assert [await request.body() for _ in range(2)] == [b"abc"] * 2
