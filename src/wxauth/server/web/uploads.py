"""Uploads of files with `wx.uploadFile`: `multipart/form-data` (RFC 7578)."""

import asyncio
from math import inf
from typing import Final

from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_options_header
from starlette.requests import Request

from wxauth.errors import InvalidRequest, PayloadTooLarge

UPLOAD_TIMEOUT_SECONDS: Final = 60.0
"""How long a file may take to arrive. `wx.uploadFile` has the same timeout."""

_MULTIPART: Final = "multipart/form-data"
_MAX_PARTS: Final = 20
_BOUNDARY: Final = range(8, 71)
"""Length of a boundary: RFC 2046 allows 70 characters. A very short one slows the parser down, which stops wherever the
data begins like it."""
_PIECE: Final = 8 * 1024
"""Bytes that are parsed without a break, in 2 ms at worst. Other requests run in between."""
# Parts are kept in memory, because there may be no writable directory. The edge limits the whole body.
_IN_MEMORY: Final = {"MAX_MEMORY_FILE_SIZE": inf}


async def uploaded_file(
    request: Request, field: str, *, max_bytes: int, patience: float = UPLOAD_TIMEOUT_SECONDS
) -> bytes:
    """The file in this field of the body, whatever its name and Content-Type are. Other fields are ignored.

    Raises: InvalidRequest, PayloadTooLarge.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != _MULTIPART.encode() or b"boundary" not in options:
        raise InvalidRequest.of(field, "Must come as multipart/form-data, as wx.uploadFile sends it")
    if len(options[b"boundary"]) not in _BOUNDARY:
        most = f"{_BOUNDARY.start} to {_BOUNDARY.stop - 1}"
        raise InvalidRequest(f"the boundary of a multipart body must have {most} characters", status=400)
    parts: list[Field | File] = []

    def take(part: Field | File) -> None:
        parts.append(part)
        if len(parts) > _MAX_PARTS:
            raise FormParserError("too many parts")

    try:
        parser = FormParser(_MULTIPART, take, take, boundary=options[b"boundary"], config=_IN_MEMORY)
        async with asyncio.timeout(patience):
            async for chunk in request.stream():
                for start in range(0, len(chunk), _PIECE):
                    parser.write(chunk[start : start + _PIECE])
                    await asyncio.sleep(0)
    except FormParserError:
        raise InvalidRequest.of(
            field, f"Must come in a multipart/form-data body of at most {_MAX_PARTS} parts"
        ) from None
    except TimeoutError:
        raise InvalidRequest(f"the body was not here in {patience:g} s", status=408) from None
    content = _only_file(parts, field)
    if len(content) > max_bytes:
        raise PayloadTooLarge(f"{field}: it may have {max_bytes} bytes")
    if not content:
        raise InvalidRequest.of(field, "Must not be empty")
    return content


def _only_file(parts: list[Field | File], field: str) -> bytes:
    match [part for part in parts if isinstance(part, File) or part.field_name == field.encode()]:
        case [File() as file] if file.field_name == field.encode():
            file.file_object.seek(0)
            return file.file_object.read()
        case []:
            raise InvalidRequest.of(field, "Field required")
        case _:
            raise InvalidRequest.of(field, "Must be one file, and no other one beside it")
