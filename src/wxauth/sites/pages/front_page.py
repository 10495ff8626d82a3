"""The page at `/`, for people who open the address of the service in a browser."""

import re
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from wxauth.errors import NotFound
from wxauth.sites.pages.pages import VARY_OF_FRONT_PAGE, pages_of
from wxauth.users.callers import device_of
from wxauth.web.dependencies import services_of
from wxauth.web.edge import PROBLEM_KEY
from wxauth_guard.problems import problem_response

_MAX_ACCEPT_LENGTH: Final = 1024
_MEDIA_RANGE: Final = re.compile(
    r"\s*(?P<type>[a-z]+/[a-z+]+)\s*(?:;\s*q\s*=\s*(?P<quality>[01](?:\.\d{0,3})?)\s*)?", re.IGNORECASE
)


def add_front_page(app: FastAPI) -> None:
    """Add the page to an app, after all other routes, so that no request to the API is compared with it."""
    app.router.routes.append(_FrontPage())


class _FrontPage(Route):
    def __init__(self) -> None:
        super().__init__("/", _show, include_in_schema=False)
        self.path_regex = re.compile("^/?$")  # an issuer such as https://example.com/auth is opened without a slash

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        # Programs with a wrong URL must learn that the path doesn't exist, not that it takes only GET.
        return (match, child_scope) if match is Match.FULL else (Match.NONE, {})


async def _show(request: Request) -> Response:
    if _prefers_html(request.headers.getlist("accept")):
        services = await services_of(request)
        return (await pages_of(request, services.settings, await device_of(request))).front()
    # The error is not raised, because the response needs its own `Vary`. The key makes it count and appear in the log.
    request.scope[PROBLEM_KEY] = error = NotFound("this path doesn't exist")
    response = problem_response(error, request.scope)
    response.headers["Vary"] = VARY_OF_FRONT_PAGE
    return response


def _prefers_html(accept: list[str]) -> bool:
    """Return whether `Accept` names HTML itself, which `*/*` doesn't, and rates it no lower than JSON."""
    qualities: dict[str, float] = {}
    for text in ",".join(accept)[:_MAX_ACCEPT_LENGTH].split(","):
        match = _MEDIA_RANGE.fullmatch(text)
        if match is not None:
            qualities[match["type"].lower()] = float(match["quality"] or 1)
    html = qualities.get("text/html", 0)
    return html > 0 and html >= max(qualities.get("application/json", 0), qualities.get("application/problem+json", 0))
