"""Answers that clients may cache and revalidate (`ETag`)."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response


def cacheable_response(
    request: Request, content: bytes, *, etag: str, headers: Mapping[str, str], media_type: str
) -> Response:
    """The content with its `ETag`; 304 if the request's `If-None-Match` names that ETag (RFC 9110, section 13.1.2)."""
    headers = {**headers, "ETag": etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)
