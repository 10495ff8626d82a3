"""The command `python -m benchmarks.guard`, which measures the cost of a guarded call and of importing the guard."""

import asyncio
import resource
import subprocess
import sys
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from time import process_time, time
from typing import Annotated, Any, Final
from uuid import uuid4

import click
from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig
from jose import jwk, jwt
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wxauth.tokens import AccessClaims, SigningKey, TokenIssuer
from wxauth_guard import BearerGuard, BearerMiddleware, Principal
from wxauth_guard.keys import VerificationKey

ISSUER: Final = "https://auth.test"
CALLS: Final = 500
"""The number of calls per contender and round."""
KNOWN: Final = 1000
"""The number of users whose tokens have been seen before, and are used again in turn."""
TARGET: Final = 1.3
SIGNER: Final = SigningKey.generate()
KEY: Final = SIGNER.verification_key
JOSE_KEY: Final = jwk.construct(SIGNER.public_jwk)
DECODE_OPTIONS: Final = {f"require_{name}": True for name in ("exp", "aud", "iss", "sub", "iat")}
QUIET: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False}
IMPORTS: Final = (
    "fastapi",
    "fastapi, httpx, cryptography.hazmat.primitives.asymmetric.ec",
    "wxauth_guard",
    "wxauth_guard.jwks",
)
"""The modules whose import is timed.

The third is for a guard with its own keys, and the fourth for a guard that reads its issuer's keys.
"""


class OneKey:
    async def find(self, kid: str) -> VerificationKey | None:
        return SIGNER.verification_key if kid == SIGNER.kid else None


@dataclass(frozen=True)
class Contender:
    """A way to serve a call. Its arguments are prepared before the measurement begins."""

    name: str
    prepare: Callable[[str], Any]
    call: Callable[[Any], Awaitable[object]]
    beside: str | None = None
    """The name of the same call without the measured work."""
    knows: bool = False
    """Whether each token has been seen before."""


@click.command()
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    help="Rounds after a first one that isn't counted.",
)
@click.option("--strict", is_flag=True, help="Exit with status 1 if the target is missed.")
def main(rounds: int, strict: bool) -> None:
    """Measure CPU µs per call in this process, with the contenders in turn, and check every response."""
    click.echo("| call | CPU µs | adds µs | x `key.verify` | x `jwt.decode` |\n|---|--:|--:|--:|--:|")
    samples = asyncio.run(run(rounds))
    bare, decode = samples["key.verify"], samples["jwt.decode"]
    missed = []
    for contender in contenders():
        own = samples[contender.name]
        beside = samples[contender.beside] if contender.beside else [0.0] * rounds
        adds = [cost - base for cost, base in zip(own, beside, strict=True)]
        ratio = median(a / b for a, b in zip(adds, bare, strict=True))
        to_decode = median(a / b for a, b in zip(adds, decode, strict=True))
        click.echo(f"| {contender.name} | {median(own):.1f} | {median(adds):.1f} | {ratio:.2f} | {to_decode:.2f} |")
        if contender.knows and ratio > TARGET:
            missed.append(contender.name)
    click.echo(f"\ntarget, {TARGET} x `key.verify` for a token that came before: {'missed' if missed else 'met'}\n")
    click.echo("| import | CPU ms |\n|---|--:|")
    for modules, cost in import_costs().items():
        click.echo(f"| `{modules}` | {cost:.0f} |")
    sys.exit(1 if strict and missed else 0)


async def run(rounds: int) -> dict[str, list[float]]:
    """Return CPU µs per call, by contender, with one value per round."""
    entrants = contenders()
    known = list(islice(tokens(), KNOWN))
    again = {contender.name: cycle(known) for contender in entrants}
    for contender in entrants:
        if contender.knows:
            for token in known:
                await contender.call(contender.prepare(token))
    samples: dict[str, list[float]] = {contender.name: [] for contender in entrants}
    for number in range(rounds + 1):
        for contender in entrants:
            source = again[contender.name] if contender.knows else tokens()
            prepared = [contender.prepare(token) for token in islice(source, CALLS)]
            started = process_time()
            for each in prepared:
                await contender.call(each)
            if number:
                samples[contender.name].append((process_time() - started) / CALLS * 1e6)
    return samples


def contenders() -> list[Contender]:
    """Return the contenders.

    A guard with its app serves either known or new tokens, so that neither benefits the other.
    """
    return [
        Contender("key.verify", parts_of, verify_bare),
        Contender("jwt.decode", str, decode),
        Contender("guard.verify, first time", str, new_guard().verify),
        Contender("guard.verify, again", str, new_guard().verify, knows=True),
        Contender("FastAPI route", scope_of, serving(fastapi_app(None))),
        Contender("FastAPI, key.verify alone", scope_of, serving(fastapi_app(bare_dependency)), "FastAPI route"),
        Contender("FastAPI, guard, first time", scope_of, serving(fastapi_app(new_guard())), "FastAPI route"),
        Contender("FastAPI, guard, again", scope_of, serving(fastapi_app(new_guard())), "FastAPI route", knows=True),
        Contender("ASGI app", scope_of, serving(plain_app)),
        Contender("ASGI, middleware, first time", scope_of, serving(guarded_app()), "ASGI app"),
        Contender("ASGI, middleware, again", scope_of, serving(guarded_app()), "ASGI app", knows=True),
    ]


def tokens() -> Iterator[str]:
    issuer = TokenIssuer(issuer=ISSUER, audience="wxauth")
    while True:
        yield issuer.issue(
            SIGNER,
            AccessClaims(
                user_id=uuid4(),
                session_id=uuid4(),
                app_id="wx0123456789abcdef",
                openid="o6_bmjrPTlm6_2sgVt7hMZOPfL2M",
                roles=["admin"],
                issued_at=int(time()),
                expires_in=900,
            ),
        )


def new_guard() -> BearerGuard:
    return BearerGuard(ISSUER, keys=OneKey())


def parts_of(token: str) -> tuple[bytes, bytes]:
    signing_input, _, signature = token.rpartition(".")
    return signing_input.encode(), urlsafe_b64decode(f"{signature}==")


async def verify_bare(parts: tuple[bytes, bytes]) -> None:
    assert KEY.verify(*parts)


async def decode(token: str) -> None:
    assert jwt.decode(token, JOSE_KEY, algorithms=["ES256"], audience="wxauth", issuer=ISSUER, options=DECODE_OPTIONS)


async def bare_dependency(connection: HTTPConnection) -> None:
    assert KEY.verify(*parts_of(connection.headers["authorization"].removeprefix("Bearer ")))


def fastapi_app(dependency: Callable[..., Any] | None) -> ASGIApp:
    app = FastAPI(telemetry=QUIET)
    if dependency is None:

        @app.get("/orders")
        async def open_orders() -> dict[str, str]:
            return {"of": "anyone"}
    else:

        @app.get("/orders")
        async def orders(user: Annotated[Any, Depends(dependency)]) -> dict[str, str]:
            return {"of": "anyone" if user is None else user.openid}

    return app


async def plain_app(scope: Scope, receive: Receive, send: Send) -> None:
    user: Principal | None = scope.get("user")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"anyone" if user is None else user.openid.encode()})


def guarded_app() -> ASGIApp:
    return BearerMiddleware(plain_app, new_guard())


def scope_of(token: str) -> Scope:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": "/orders",
        "raw_path": b"/orders",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"orders.test"), (b"authorization", b"Bearer " + token.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("orders.test", 443),
    }


def serving(app: ASGIApp) -> Callable[[Scope], Awaitable[None]]:
    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200

    return lambda scope: app(scope, receive, send)


def import_costs() -> dict[str, float]:
    """Return the CPU ms of a fresh process that imports these modules, minus an empty process.

    They are medians, in turns.
    """
    costs: dict[str, list[float]] = {modules: [] for modules in ("sys", *IMPORTS)}
    for _ in range(9):
        for modules, found in costs.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3)
    return {modules: median(found) - median(costs["sys"]) for modules, found in costs.items() if modules != "sys"}


if __name__ == "__main__":
    main()
