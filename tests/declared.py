"""Checks that the documentation of each operation declares every failure that a test provokes."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx

from wxauth.errors import PayloadTooLarge
from wxauth.service.app import create_api
from wxauth.web.direct import DirectRoute
from wxauth_guard.errors import InvalidRequest

ANYWHERE = {*((status, InvalidRequest.code) for status in (400, 414, 431)), (413, PayloadTooLarge.code)}
"""Failures that occur before the operation is known, because the request is malformed or too large."""


async def check_declared(answer: httpx.Response) -> None:
    """Fail the test if the operation does not declare this failure. HTTP clients call this function as a hook."""
    if answer.headers.get("content-type") != "application/problem+json":
        return
    for route, declared in _operations():
        if answer.request.method in (route.methods or ()) and route.path_regex.match(answer.request.url.path):
            await answer.aread()
            failure = (answer.status_code, answer.json()["code"])
            assert failure in declared | ANYWHERE, f"{route.name} does not declare {failure}"
            return


@cache
def _operations() -> list[tuple[DirectRoute, set[tuple[int, str]]]]:
    routes = [route for route in create_api().routes if isinstance(route, DirectRoute) and route.include_in_schema]
    return [(route, set(_declared(route.responses))) for route in routes]


def _declared(responses: dict[int | str, dict[str, Any]]) -> Iterator[tuple[int, str]]:
    for status, response in responses.items():
        for code in response.get("content", {}).get("application/problem+json", {}).get("examples", {}):
            yield int(status), code
