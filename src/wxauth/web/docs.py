"""`/docs` and `/openapi.json`, served from this process; nothing from a CDN."""

from pathlib import Path

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_ASSETS = "/docs/assets"
# Swagger UI's page starts itself with an inline script.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)


def add_docs(app: FastAPI) -> None:
    """Put the documentation behind all other routes, which need not be matched against it first."""

    async def openapi(_: Request) -> Response:
        return Response(to_json(app.openapi()), media_type="application/json")

    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        page = get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title=app.title,
            swagger_js_url=f"{root}{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{root}{_ASSETS}/favicon.png",
            swagger_ui_parameters={"validatorUrl": None, "persistAuthorization": False, "tryItOutEnabled": True},
        )
        page.headers["Content-Security-Policy"] = _POLICY
        return page

    async def asset(request: Request) -> Response:
        return await files.get_response(request.path_params["name"], request.scope)

    files = StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static")
    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)
    app.add_route(_ASSETS + "/{name}", asset, include_in_schema=False)  # no mount: a 405 would not know its methods
