"""`POST /v1/me/avatar` and `GET /v1/avatars/...`: upload and download of pictures."""

from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from wxauth.errors import InvalidRequest, NotFound, PayloadTooLarge, RateLimited, StorageUnavailable, Title
from wxauth.server.pictures.avatars import MAX_FILE, Avatars
from wxauth.server.users.bodies import AVATARS_PATH, UserAnswer, user_answer
from wxauth.server.users.callers import CallerDep
from wxauth.server.web.dependencies import SettingsDep, provide
from wxauth.server.web.direct import Router
from wxauth.server.web.edge import MAX_BODY
from wxauth.server.web.headers import cacheable_response
from wxauth.server.web.uploads import uploaded_file

router = Router("me")

AvatarsDep = Annotated[Avatars, Depends(provide(Avatars))]

UPLOAD_PATH: Final = "/v1/me/avatar"
MAX_UPLOAD: Final = MAX_FILE + MAX_BODY
"""Maximum bytes of an upload's body: the picture and the multipart form around it."""

_FIELD: Final = "file"
_WRONG_FILE: Final = InvalidRequest.of(_FIELD, "Field required")
_BINARY: Final = {"type": "string", "contentMediaType": "application/octet-stream"}
_HEADERS: Final = {
    # A picture never changes, but is deleted with its user. So a cache may keep it for a day, and must then revalidate.
    "Cache-Control": "public, max-age=86400, must-revalidate",
    "Content-Disposition": "inline",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


@router.post(
    UPLOAD_PATH,
    summary=Title("Upload my picture", "上传我的头像"),
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
    failures=[_WRONG_FILE, PayloadTooLarge, RateLimited],
)
async def change_my_avatar(
    caller: CallerDep, request: Request, settings: SettingsDep, avatars: AvatarsDep
) -> UserAnswer:
    """Store the picture from `chooseAvatar`. `avatar_url` is set to it, and the former picture is deleted.

    The file is a JPEG, PNG or WebP of up to 2 MiB and 16 megapixels (WebP: 4), as `wx.uploadFile` sends it with
    `name: 'file'`. It is stored as a JPEG, or as a PNG if it is transparent, without metadata. Its longer side has at
    most 512 pixels. After 20 pictures in an hour, the next is `rate_limited`.
    """
    with avatars.upload(caller.user.id, caller.session_id):
        file = await uploaded_file(request, _FIELD, max_bytes=MAX_FILE)
        return user_answer(await avatars.replace(caller.user, file), settings.consents)


@router.get(
    AVATARS_PATH + "{file_name}",
    summary=Title("Read a user's picture", "用户头像"),
    tag="avatars",
    responses={
        200: {
            "description": "The picture",
            "headers": {
                name: {"schema": {"type": "string"}, "example": value}
                for name, value in {**_HEADERS, "ETag": '"Yp4Zt2Vq8nCwRk1EtTmHYj.jpg"'}.items()
            },
            "content": {"image/jpeg": {"schema": _BINARY}, "image/png": {"schema": _BINARY}},
        },
        304: {"description": "Not changed"},
    },
    failures=[NotFound, StorageUnavailable],
)
async def read_avatar(file_name: str, request: Request, avatars: AvatarsDep) -> Response:
    """The picture of an `avatar_url` of this service. A URL's picture never changes."""
    avatar = await avatars.read(file_name)
    return cacheable_response(
        request, avatar.content, etag=f'"{file_name}"', headers=_HEADERS, media_type=avatar.content_type
    )
