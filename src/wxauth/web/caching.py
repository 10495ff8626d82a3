"""Responses that caches and browsers can store, and check again with `If-None-Match`."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response


def cacheable_response(
    request: Request, content: bytes, *, etag: str, headers: Mapping[str, str], media_type: str
) -> Response:
    """Return a response with the content and its `ETag`. `etag` includes the quotation marks.

    If `If-None-Match` contains this `ETag`, or `*`, return a response with status 304 instead (RFC 9110, section
    13.1.2).
    """
    headers = {**headers, "ETag": etag}
    cached_etags = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in cached_etags or "*" in cached_etags:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)
