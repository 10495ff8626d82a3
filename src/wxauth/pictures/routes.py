"""The upload and the download of pictures: `POST /v1/me/avatar` and `GET /v1/avatars/...`."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from math import inf
from typing import Annotated, Final

from fastapi import Depends
from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_options_header
from starlette.requests import Request
from starlette.responses import Response

from wxauth.errors import PICTURE_TOO_LARGE, NotFound, PayloadTooLarge, RateLimited, StorageUnavailable
from wxauth.i18n import lazy_gettext as _
from wxauth.pictures.avatars import MAX_FILE_BYTES, Avatars
from wxauth.users.callers import CallerDep
from wxauth.users.schemas import AVATARS_PATH, UserAnswer, user_answer
from wxauth.web.answers import cacheable_response
from wxauth.web.dependencies import SettingsDep, provide
from wxauth.web.direct import Router
from wxauth.web.edge import MAX_BODY
from wxauth_guard.errors import InvalidRequest

UPLOAD_PATH: Final = "/v1/me/avatar"
MAX_UPLOAD_BYTES: Final = MAX_FILE_BYTES + MAX_BODY  # the picture and the multipart form around it
UPLOAD_TIMEOUT_SECONDS: Final = 60.0  # the timeout of `wx.uploadFile`

_MULTIPART: Final = "multipart/form-data"
_MAX_PARTS: Final = 20  # one of them is the file, and the others are ignored
# RFC 2046 allows 70 bytes. A very short boundary slows down the parser, which stops wherever one might begin.
_BOUNDARY_LENGTHS: Final = range(8, 71)
_PIECE_BYTES: Final = 8 * 1024  # parsed in 2 ms at most
# The parser stores parts in memory, because there might be no writable directory. `Edge` limits the size of the body.
_IN_MEMORY: Final = {"MAX_MEMORY_FILE_SIZE": inf}
_FIELD: Final = "file"
_BINARY: Final = {"type": "string", "contentMediaType": "application/octet-stream"}
_HEADERS: Final = {
    # A picture at a URL never changes, but it can be deleted. Therefore a cache may store a picture for a day, and must
    # then revalidate it.
    "Cache-Control": "public, max-age=86400, must-revalidate",
    "Content-Disposition": "inline",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
_REQUIRED: Final = "Field required"  # FastAPI's message about any missing field
# This is for the API's documentation. A raised exception keeps its stack frames alive, so requests raise new ones.
_NO_FILE: Final = InvalidRequest.of(_FIELD, _REQUIRED)

router = Router("me")
AvatarsDep = Annotated[Avatars, Depends(provide(Avatars))]


async def uploaded_file(request: Request, *, patience: float = UPLOAD_TIMEOUT_SECONDS) -> bytes:
    """Return the uploaded file, whatever its name and Content-Type. The upload may take `patience` seconds."""
    content = _only_file(await _read_parts(request, _boundary_of(request), patience=patience))
    if len(content) > MAX_FILE_BYTES:
        raise PayloadTooLarge(f"the file must have at most {MAX_FILE_BYTES} bytes", title=PICTURE_TOO_LARGE)
    if not content:
        raise InvalidRequest.of(_FIELD, "Must not be empty")
    return content


def _boundary_of(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != _MULTIPART.encode() or b"boundary" not in options:
        raise InvalidRequest.of(_FIELD, "Must be multipart/form-data, as wx.uploadFile sends it")
    if len(options[b"boundary"]) not in _BOUNDARY_LENGTHS:
        lengths = f"{_BOUNDARY_LENGTHS.start} to {_BOUNDARY_LENGTHS.stop - 1}"
        raise InvalidRequest(
            f"the boundary of a multipart body must have {lengths} characters", status=HTTPStatus.BAD_REQUEST
        )
    return options[b"boundary"]


async def _read_parts(request: Request, boundary: bytes, *, patience: float) -> Sequence[Field | File]:
    parts: list[Field | File] = []
    is_begun = is_complete = False

    def end() -> None:
        nonlocal is_complete
        is_complete = True

    def add_part(part: Field | File) -> None:
        parts.append(part)
        if len(parts) > _MAX_PARTS:
            raise FormParserError("too many parts")

    try:
        # The parser adds a part only at the end of the part. A part that is cut off counts as missing.
        parser = FormParser(
            _MULTIPART, on_field=add_part, on_file=add_part, on_end=end, boundary=boundary, config=_IN_MEMORY
        )
        async with asyncio.timeout(patience):
            async for chunk in request.stream():
                is_begun = is_begun or bool(chunk)
                for start in range(0, len(chunk), _PIECE_BYTES):
                    parser.write(chunk[start : start + _PIECE_BYTES])
                    await asyncio.sleep(0)  # other requests are handled during this break
    except FormParserError:
        raise InvalidRequest.of(
            _FIELD, f"Must be in a multipart/form-data body of at most {_MAX_PARTS} parts"
        ) from None
    except PayloadTooLarge as exc:
        raise PayloadTooLarge(exc.detail, title=PICTURE_TOO_LARGE) from None
    except TimeoutError:
        raise InvalidRequest(
            f"the body didn't arrive within {patience:g} s", status=HTTPStatus.REQUEST_TIMEOUT
        ) from None
    if is_begun and not is_complete and not any(isinstance(part, File) for part in parts):
        raise InvalidRequest.of(_FIELD, "Must be complete, but the upload was cut off. Send it again")
    return parts


def _only_file(parts: Sequence[Field | File]) -> bytes:
    # The candidates also include files in other fields, and a field `file` that is not a file, so that the message can
    # say what is wrong with them.
    expected_name = _FIELD.encode()
    candidates = [part for part in parts if isinstance(part, File) or part.field_name == expected_name]
    match candidates:
        case [File() as file] if file.field_name == expected_name:
            file.file_object.seek(0)
            return file.file_object.read()
        case [File()]:
            raise InvalidRequest.of(_FIELD, "Must be the name of the picture's part: wx.uploadFile({ name: 'file' })")
        case [Field()]:
            raise InvalidRequest.of(
                _FIELD, "Must have a file name in its Content-Disposition, as wx.uploadFile sends it"
            )
        case []:
            raise InvalidRequest.of(_FIELD, _REQUIRED)
        case _:
            raise InvalidRequest.of(_FIELD, "Must be the only file in the body")


@router.post(
    UPLOAD_PATH,
    summary=_("Upload my picture"),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {"type": "object", "properties": {_FIELD: _BINARY}, "required": [_FIELD]},
                    "example": {_FIELD: "the picture"},
                }
            },
        },
    },
    failures=[_NO_FILE, PayloadTooLarge, RateLimited],
)
async def change_my_avatar(
    caller: CallerDep, request: Request, settings: SettingsDep, avatars: AvatarsDep
) -> UserAnswer:
    """Store the picture from `chooseAvatar`, set `avatar_url` to it, and delete the previous picture.

    The file is a JPEG or PNG of up to 2 MiB and 16 megapixels, or a WebP of up to 2 MiB and 4 megapixels, as
    `wx.uploadFile` sends it with `name: 'file'`. wxauth stores the picture without metadata as a JPEG, or as a PNG if
    it is transparent. The longer side of the stored picture has at most 512 pixels. After 20 pictures in an hour, the
    next upload fails with `rate_limited`.
    """
    with avatars.place_for_upload(caller.user.id, caller.session_id):
        file = await uploaded_file(request)
        return user_answer(await avatars.replace(caller.user, file), settings.consents)


@router.get(
    AVATARS_PATH + "{file_name}",
    summary=_("Read a user's picture"),
    tag="avatars",
    responses={
        HTTPStatus.OK: {
            "description": "The picture",
            "headers": {
                name: {"schema": {"type": "string"}, "example": value}
                for name, value in {**_HEADERS, "ETag": '"Yp4Zt2Vq8nCwRk1EtTmHYj.jpg"'}.items()
            },
            "content": {"image/jpeg": {"schema": _BINARY}, "image/png": {"schema": _BINARY}},
        },
        HTTPStatus.NOT_MODIFIED: {"description": "Not changed"},
    },
    failures=[NotFound, StorageUnavailable],
)
async def read_avatar(file_name: str, request: Request, avatars: AvatarsDep) -> Response:
    """Return the picture at an `avatar_url` of this service. The picture at a URL never changes, but can be deleted."""
    avatar = await avatars.read(file_name)
    return cacheable_response(
        request, avatar.content, etag=f'"{file_name}"', headers=_HEADERS, media_type=avatar.content_type
    )
