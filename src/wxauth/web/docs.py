"""The routes `/docs` and `/openapi.json`, which return the API documentation in the language of the request.

The page `/docs` loads its scripts from the service, and nothing from a CDN.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, get_args

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute

from wxauth.i18n import Text, lazy_gettext as _, translate
from wxauth.web.answers import Problem
from wxauth.web.direct import DirectRoute
from wxauth_guard import BearerGuard
from wxauth_guard.problems import preferred_language

_ASSETS: Final = "/docs/assets"
# The page's Content-Security-Policy, to which `script-src` is added below. The policy is strict because the page
# has the same origin as the console.
_POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The tags of the operations, which the page shows as translated headings.
_TAGS: Final = [
    _("login"),
    _("me"),
    _("admin"),
    _("keys"),
    _("siblings"),
    _("websites"),
    _("scans"),
    _("wechat"),
    _("operations"),
    _("avatars"),
]
_FOLDER: Final = Path(__file__).parent
# The end of the page's head, in which the URL of the icon replaces ICON.
_HEAD: Final = (
    (_FOLDER / "docs_head.html").read_text("utf-8").replace("TOKENS", (_FOLDER / "tokens.css").read_text("utf-8"))
)
_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def openapi_of(app: FastAPI, *, schemes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI document of an app, without FastAPI's mistakes. It is built at the first call."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    schema = FastAPI.openapi(app)  # stores the document in `app.openapi_schema`, too
    models = schema["components"]["schemas"]
    models["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    for name in ("HTTPValidationError", "ValidationError"):
        models.pop(name, None)
    schema["components"]["securitySchemes"] = {
        BearerGuard.scheme_name: BearerGuard.model.model_dump(mode="json", by_alias=True, exclude_none=True),
        **schemes,
    }
    for route, operation in _operations(schema, app.routes):
        _correct_responses(operation["responses"], route.responses.get(HTTPStatus.OK, {}))
        if route.body_field is not None:
            _restore_example(models, route.body_field.field_info.annotation)
    return schema


def _operations(document: Mapping[str, Any], routes: Iterable[BaseRoute]) -> Iterator[tuple[APIRoute, dict[str, Any]]]:
    for route in routes:
        if isinstance(route, DirectRoute) and route.include_in_schema:
            for method in route.methods or ():
                yield route, document["paths"][route.path_format][method.lower()]


def _correct_responses(responses: dict[str, Any], declared: Mapping[str, Any]) -> None:
    """Remove the 422 that FastAPI documents for any parameter, and restore the nulls that it omits."""
    # A 422 with JSON is FastAPI's. wxauth's own 422 is a problem document, which has another content type.
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    declared_json = declared.get("content", {}).get("application/json")
    if declared_json:
        responses["200"]["content"]["application/json"] |= declared_json


# FastAPI omits nulls from the example of a request body.
def _restore_example(models: dict[str, Any], model: Any) -> None:
    for variant in get_args(model) or (model,):
        extra = getattr(variant, "model_config", {}).get("json_schema_extra")
        if isinstance(extra, dict) and variant.__name__ in models:
            models[variant.__name__] |= extra


def add_docs(app: FastAPI) -> None:
    """Add the routes of the documentation, after the routes of the API.

    FastAPI tries routes in the order in which they were added, so a request to the API never costs a comparison with
    these.
    """
    documents: dict[str, bytes] = {}
    files = StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static")

    async def openapi(request: Request) -> Response:
        language = preferred_language(request.headers)
        if language not in documents:
            documents[language] = to_json(_translated_openapi(app, language))
        return Response(documents[language], media_type="application/json", headers=_language_headers(language))

    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        return _docs_page(app.title, root, preferred_language(request.headers))

    async def asset(request: Request) -> Response:
        return await files.get_response(request.path_params["name"], request.scope)

    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)
    app.add_route(_ASSETS + "/{name}", asset, include_in_schema=False)  # a mount's 405 would lack the header Allow


def _translated_openapi(app: FastAPI, language: str) -> dict[str, Any]:
    # The service replaces FastAPI's `openapi` with a function that calls `openapi_of`.
    translated = deepcopy(app.openapi())
    translated["info"]["description"] = translate(app.description, language)
    tags = {tag: tag.translated(language) for tag in _TAGS}
    for route, operation in _operations(translated, app.routes):
        assert isinstance(route.summary, Text)  # as in `Declared`; FastAPI's type of the attribute is `str | None`
        summary = route.summary.translated(language)
        operation |= {"summary": summary, "tags": [tags[tag] for tag in operation["tags"]]}
    return translated


def _docs_page(title: str, root: str, language: str) -> HTMLResponse:
    icon = f"{root}/v1/pages/icon.svg"
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title=title,
        swagger_js_url=f"{root}{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{_ASSETS}/swagger-ui.css",
        swagger_favicon_url=icon,
        # With these parameters, Swagger UI sends nothing to an external validator, and stores no token in the browser.
        swagger_ui_parameters={"validatorUrl": None, "persistAuthorization": False, "tryItOutEnabled": True},
    )
    html = bytes(page.body).replace(b"<html>", f'<html lang="{language}">'.encode(), 1)
    html = html.replace(b"</head>", _HEAD.replace("ICON", icon).encode(), 1)
    # An inline script in the page starts Swagger UI, so the policy must allow this script.
    digests = (b64encode(sha256(script).digest()).decode() for script in _INLINE_SCRIPT.findall(html))
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = f"{_POLICY}; script-src 'self' {hashes}"
    return HTMLResponse(html, headers={"Content-Security-Policy": policy, **_language_headers(language)})


def _language_headers(language: str) -> dict[str, str]:
    return {"Content-Language": language, "Vary": "Accept-Language, User-Agent"}
