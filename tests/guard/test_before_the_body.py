"""With `BearerRoute`, the guards of a FastAPI route decide before the body is read."""

from collections.abc import Callable
from typing import Annotated, Any, Optional

import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Header, HTTPException, Request
from starlette.types import Message

from tests.sweeps import Sweep
from wxauth_guard import BearerGuard, Principal
from wxauth_guard.fastapi import BearerRoute
from wxauth_guard.testing import USER_ID as USER, TestIssuer

BODY = b'{"number": 7}'


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Service:
    """An app with guards at every place of its dependency trees."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.issuer = TestIssuer(clock=self.clock)
        self.guard = guard = self.issuer.guard()
        self.app = FastAPI()
        self.app.router.route_class = BearerRoute
        clerk = guard.current.require_role("clerk")

        async def customer(user: Annotated[Principal, Depends(guard)], number: Annotated[int, Body(embed=True)]) -> str:
            return f"{user.openid}:{number}"

        async def only_with_header(x_open: Annotated[str, Header()] = "") -> None:
            if x_open == "never":
                raise HTTPException(418)

        @self.app.post("/parameter")
        async def parameter(
            number: Annotated[int, Body(embed=True)], user: Annotated[Principal, Depends(guard)]
        ) -> str:
            return f"{user.openid}:{number}"

        @self.app.post("/route", dependencies=[Depends(guard)])
        async def route(number: Annotated[int, Body(embed=True)]) -> int:
            return number

        @self.app.post("/nested", dependencies=[Depends(only_with_header)])
        async def nested(customer: Annotated[str, Depends(customer)]) -> str:
            return customer

        @self.app.post("/current")
        async def current(
            number: Annotated[int, Body(embed=True)], user: Annotated[Principal, Depends(guard.current)]
        ) -> str:
            return f"{user.openid}:{number}"

        @self.app.post("/role")
        async def role(
            number: Annotated[int, Body(embed=True)],
            user: Annotated[Principal, Depends(clerk)],
            same: Annotated[Principal, Depends(guard)],
        ) -> str:
            return f"{user.openid}:{number}"

        @self.app.post("/optional")
        async def optional(
            number: Annotated[int, Body(embed=True)], user: Annotated[Optional[Principal], Depends(guard.optional)]
        ) -> str:
            return f"{user.openid if user else 'guest'}:{number}"

        @self.app.post("/raw")
        async def raw(request: Request, user: Annotated[Principal, Depends(guard)]) -> int:
            return len(await request.body())

        @self.app.post("/open")
        async def no_guard(number: Annotated[int, Body(embed=True)]) -> int:
            return number

        router = APIRouter(route_class=BearerRoute)

        @router.post("/router")
        async def in_router(number: Annotated[int, Body(embed=True)]) -> int:
            return number

        self.app.include_router(router, dependencies=[Depends(guard)])
        whole = FastAPI(dependencies=[Depends(guard)])
        whole.router.route_class = BearerRoute

        @whole.post("/app")
        async def in_app(number: Annotated[int, Body(embed=True)]) -> int:
            return number

        self.app.mount("/whole", whole)

    async def post(
        self, path: str, headers: dict[str, Any], *, body: bytes = BODY, meanwhile: Callable[[], None] = lambda: None
    ) -> tuple[int, bytes, int]:
        """Return the status, the body, and how many parts of the request's body were read before."""
        read, sent = 0, list[Message]()

        async def receive() -> Message:
            nonlocal read
            read += 1
            meanwhile()
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [
                (name.lower().encode(), value if isinstance(value, bytes) else value.encode())
                for name, value in fields.items()
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self.app(scope, receive, send)
        return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:]), read


@pytest.fixture
def service() -> Service:
    return Service()


GUARDED = ["/parameter", "/route", "/nested", "/current", "/role", "/raw", "/router", "/whole/app"]


async def test_a_refused_request_is_answered_before_its_body(service: Service) -> None:
    wrong = {"Authorization": "Bearer not.a.token"}
    with Sweep() as sweep:
        for path in GUARDED:
            with sweep.case(f"{path} without a token"):
                status, text, read = await service.post(path, {})
                assert (status, b"missing_token" in text, read) == (401, True, 0)
            with sweep.case(f"{path} with a wrong token and a body that is no JSON"):
                status, text, read = await service.post(path, wrong, body=b"{")
                assert (status, b"invalid_token" in text, read) == (401, True, 0)
            with sweep.case(f"{path} with a website's token"):
                status, _, read = await service.post(path, service.issuer.headers(scope="openid"))
                assert (status, read) == (403, 0)
        with sweep.case("/optional with a wrong token"):
            status, _, read = await service.post("/optional", wrong)
            assert (status, read) == (401, 0)
        with sweep.case("/role without the role"):
            status, text, read = await service.post("/role", service.issuer.headers())
            assert (status, b"insufficient_role" in text, read) == (403, True, 0)
        with sweep.case("/current of a banned user"):
            headers = service.issuer.headers()
            with service.issuer.trusted_by(service.guard):
                service.issuer.ban(USER)
                status, text, read = await service.post("/current", headers)
            assert (status, b"session_revoked" in text, read) == (401, True, 0)


async def test_an_accepted_request_is_answered_as_without_it(service: Service) -> None:
    headers = service.issuer.headers(openid="o1", roles=["clerk"])
    answers = {
        "/parameter": b'"o1:7"',
        "/route": b"7",
        "/nested": b'"o1:7"',
        "/current": b'"o1:7"',
        "/role": b'"o1:7"',
        "/optional": b'"o1:7"',
        "/raw": str(len(BODY)).encode(),
        "/router": b"7",
        "/whole/app": b"7",
        "/open": b"7",
    }
    with Sweep() as sweep:
        for path, answer in answers.items():
            with sweep.case(path):
                assert (await service.post(path, headers))[:2] == (200, answer)
        with sweep.case("a guest"):
            assert (await service.post("/optional", {}))[:2] == (200, b'"guest:7"')
        with sweep.case("what needs the body comes after the guard"):
            assert (await service.post("/parameter", headers, body=b"{"))[0] == 422
        with sweep.case("another dependency's refusal"):
            assert (await service.post("/nested", {**headers, "X-Open": "never"}))[0] == 418


async def test_an_upload_that_began_with_a_valid_token_ends_well(service: Service) -> None:
    def wait() -> None:
        service.clock.now += 3600

    with Sweep() as sweep:
        for path in [*GUARDED, "/optional"]:
            with sweep.case(path):
                headers = service.issuer.headers(expires_in=31, roles=["clerk"])
                status, text, _ = await service.post(path, headers, meanwhile=wait)
                assert status == 200, text


async def test_each_guard_is_asked_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    verify = BearerGuard.verify

    async def counted(self: BearerGuard, token: str) -> Principal:
        asked.append(self._asks)
        return await verify(self, token)

    monkeypatch.setattr(BearerGuard, "verify", counted)
    await service.post("/role", service.issuer.headers(roles=["clerk"]))
    assert asked == [True, False]  # the role's guard asks wxauth, and the other one doesn't


async def test_overrides_decide_as_before(service: Service) -> None:
    alice = Principal(id=USER, app_id="a", openid="alice", session_id=USER, roles=frozenset(), claims={})
    with Sweep() as sweep:
        with sweep.case("a user in the guard's place"):
            service.app.dependency_overrides[service.guard] = lambda: alice
            assert (await service.post("/parameter", {}))[:2] == (200, b'"alice:7"')
            assert (await service.post("/nested", {}))[:2] == (200, b'"alice:7"')
            assert (await service.post("/current", {}))[:2] == (200, b'"alice:7"')
            assert (await service.post("/role", {}))[0] == 403
        with sweep.case("another guard in its place"):
            other = TestIssuer(clock=service.clock)
            service.app.dependency_overrides[service.guard] = other.guard()
            status, _, read = await service.post("/parameter", service.issuer.headers())
            assert (status, read) == (401, 0)
            assert (await service.post("/parameter", other.headers(openid="o2")))[:2] == (200, b'"o2:7"')


def test_the_openapi_document_is_the_same() -> None:
    def document(route_class: Any) -> dict[str, Any]:
        app, guard = FastAPI(), TestIssuer().guard()
        if route_class is not None:
            app.router.route_class = route_class

        @app.post("/orders")
        async def orders(number: Annotated[int, Body(embed=True)], user: Annotated[Principal, Depends(guard)]) -> int:
            return number

        return app.openapi()

    assert document(BearerRoute) == document(None)
