"""Request bodies with nicknames and picture URLs."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo

from wxauth.server.pictures.avatars import Avatars
from wxauth.server.web.bodies import TEXT, OnlyNull

# An absolute https URL without user information, or the empty string. The hosts tmp, usr and store are refused:
# WeChat's tools put local files under http://tmp/, and old tutorials change that to https.
_HTTPS_URL: Final = re.compile(
    r"(https://(?!(tmp|usr|store)(/|$))"
    r"""(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]<>"'`^{|}\\\x00-\x20\x7f]+)(:[0-9]{1,5})?"""
    r"""([/?#][^\s<>"`^{|}\\\x00-\x20\x7f]*)?)?""",
    re.IGNORECASE,
)


def _picture_url(value: str, info: ValidationInfo) -> str:
    avatars: Avatars | None = info.context and info.context[Avatars]
    if (avatars is not None and avatars.serves(value)) or _HTTPS_URL.fullmatch(value):
        return value
    raise ValueError("Must be an https URL; upload a picture that is on the phone to POST /v1/me/avatar")


Nickname = Annotated[str, StringConstraints(strip_whitespace=True, max_length=64, pattern=TEXT)]
AvatarUrl = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2048), AfterValidator(_picture_url)]


class ProfileChange(BaseModel):
    """Changes of the caller's profile. An absent field is unchanged; null or empty clears it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"nickname": "小明"}]}, hide_input_in_errors=True)

    nickname: Nickname | None = Field(
        default=None,
        validation_alias=AliasChoices("nickname", "nickName", "userName"),
        description="Also accepted as `nickName`, `userName`.",
    )
    avatar_url: AvatarUrl | None = Field(
        default=None,
        validation_alias=AliasChoices("avatar_url", "avatarUrl"),
        description="An https URL. Also accepted as `avatarUrl`. The URL of an uploaded picture is ignored.",
    )
    phone: OnlyNull = Field(
        default=None, description="null removes the number. Only `POST /v1/me/phone` and a login set one."
    )

    def changes(self) -> dict[str, str | None]:
        """The fields that the request contains, with None for those to clear."""
        return {name: getattr(self, name) or None for name in self.model_fields_set}
