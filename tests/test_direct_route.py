"""Direct routes refuse declarations that they cannot serve; a shortcut finds their path."""

from collections.abc import Callable
from typing import Annotated, Any, NotRequired
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, Query
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from wxauth.errors import AccountDisabled, NotFound, Title, WxAuthError
from wxauth.server.web.answers import Entails
from wxauth.server.web.direct import DirectRoute, Router, Shortcut, direct_routes


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
def test_an_option_that_a_direct_route_would_ignore_is_refused(
    path: str, endpoint: Any, declared: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        DirectRoute(path, endpoint, **declared)


def test_an_endpoint_that_a_direct_route_can_serve_is_accepted() -> None:
    DirectRoute("/", anything, status_code=204)


class Word(TypedDict):
    """An answer."""

    word: Annotated[str, Field(examples=["hello"])]
    said_by: NotRequired[str]
    translation: str | None


class WordsQuery(BaseModel):
    """Which words to list."""

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
    router.get("/words/{word_id}", summary=Title("Find a word", "查找词语"), failures=[NotFound])(find_word)
    [route] = router.routes
    codes = {code for status in (403, 404, 422, 500) for code in problems_in(route.responses[status])}
    assert codes == {"account_disabled", "not_found", "invalid_request", "internal_error"}
    wrong_id = problems_in(route.responses[422])["invalid_request"]["value"]
    assert [error["field"] for error in wrong_id["errors"]] == ["word_id"]
    assert route.responses[200]["content"]["application/json"]["example"] == {"word": "hello", "translation": None}
    assert route.openapi_extra == {"security": [{"wxauth": []}, {"other": []}]}
    assert (route.summary, route.title) == ("Find a word", ("Find a word", "查找词语"))


def test_an_answer_of_which_no_example_can_be_made_is_refused() -> None:
    async def find_text() -> str:
        return "text"

    with pytest.raises(TypeError, match="no example"):
        Router("words").get("/text", summary=Title("Find a text", "查找文本"))(find_text)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("", {"limit": 2, "language": []}),
        ("?limit=5&language=en&language=zh&unknown=1", {"limit": 5, "language": ["en", "zh"]}),
        ("?limit=5&limit=7", {"limit": 7, "language": []}),
    ],
)
async def test_a_direct_route_reads_a_query_as_fastapi_does(query: str, answer: dict[str, Any]) -> None:
    api = FastAPI()
    api.get("/by-fastapi")(list_words)
    api.router.routes.append(DirectRoute("/direct", list_words, include_in_schema=False))
    async with AsyncClient(transport=ASGITransport(api), base_url="http://test") as client:
        for path in ("/by-fastapi", "/direct"):
            assert (await client.get(path + query)).json() == answer


def problems_in(response: dict[str, Any]) -> dict[str, Any]:
    """The examples of a documented failure, by code."""
    return response["content"]["application/problem+json"]["examples"]


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
    endpoints: dict[str, Callable[..., Any]] = {"/fixed": fixed, "/taken/{word}": wild, "/taken/fixed": fixed}
    for route, endpoint in {**endpoints, "/broken": broken}.items():
        api.router.routes.append(DirectRoute(route, endpoint, include_in_schema=False))
    api.add_exception_handler(WxAuthError, lambda _request, _error: PlainTextResponse("told by the app"))
    asked = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await api(scope, receive, send)

    for served in (api, Shortcut(app, direct_routes(api.routes))):
        root_path = "/under" if path.startswith("/under") else ""
        transport = ASGITransport(served, root_path=root_path)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get(path)).text == answer
    assert asked == ([] if by_shortcut else [path])
