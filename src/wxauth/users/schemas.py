"""The requests and responses about users, their profiles, identities and sessions, and what they have consented to."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, NotRequired, TypeGuard, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    RootModel,
    StringConstraints,
    ValidationInfo,
    create_model,
)
from typing_extensions import TypedDict

from wxauth.core.users import PROFILE_FIELDS, UserFields, UserInSession, UserStatus
from wxauth.errors import NICKNAME_REFUSED
from wxauth.sessions.list_queries import OpenSession, PastSession
from wxauth.settings.apps import MAX_OPEN_SESSIONS, AppKind
from wxauth.settings.roles import MAX_ROLES, Role
from wxauth.settings.settings import Settings
from wxauth.texts import clean_text
from wxauth.users.attributes import AttributesPatch, ShownAttributes
from wxauth.users.consent_queries import ConsentRow, missing_from
from wxauth.users.search_queries import IdentityJson, ListedUser
from wxauth.users.user_queries import OwnIdentity
from wxauth.web.pages import LIMIT_DESCRIPTION, MAX_PAGE_SIZE, NextCursor, Page, TimedPageQuery
from wxauth.web.schemas import (
    TEXT_PATTERN,
    BodyWithRules,
    Changes,
    OnlyNull,
    OrEmpty,
    ShownAppId,
    ShownNickname,
    ShownOpenid,
    ShownPictureUrl,
    ShownUserId,
    Time,
    body_like,
    only_null,
)
from wxauth.wechat.received import is_stand_in

# The pattern matches an absolute https URL without user information, or the empty string. It does not match the hosts
# tmp, usr and store, because WeChat's tools give local files URLs such as http://tmp/, and old tutorials change these
# to https.
_HTTPS_URL: Final = re.compile(
    r"(https://(?!(tmp|usr|store)(/|$))"
    r"""(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]<>"'`^{|}\\\x00-\x20\x7f]+)(:[0-9]{1,5})?"""
    r"""([/?#][^\s<>"`^{|}\\\x00-\x20\x7f]*)?)?""",
    re.IGNORECASE,
)
AVATARS_PATH: Final = "/v1/avatars/"
MAX_NICKNAME: Final = 64  # guides and examples that repeat it are in tests/repository/test_limits.py
MAX_AVATAR_URL: Final = 2048
MAX_REASON: Final = 500
MAX_CONSENTS_PER_PAGE: Final = 100


def _without_duplicates(roles: list[str]) -> list[str]:
    unique = list(dict.fromkeys(roles))
    if len(unique) > MAX_ROLES:
        raise ValueError(f"List should have at most {MAX_ROLES} items")  # pydantic's own words for this rule
    return unique


Roles = Annotated[list[Role], AfterValidator(_without_duplicates)]
Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=MAX_REASON, pattern=TEXT_PATTERN),
    AfterValidator(lambda reason: reason or None),
]
"""An empty reason becomes None, so a field has the type `Reason | None`."""


_REMOVALS: Final[Mapping[str, Any]] = {
    name: (OnlyNull, Field(default=None, description="Null clears an inappropriate value.")) for name in PROFILE_FIELDS
}
# Staff and services can clear each field of a profile, but never set one.
ProfileRemovals: Any = create_model("ProfileRemovals", **_REMOVALS)


class UserChangeRequest(Changes, ProfileRemovals):
    """The changes to a user.

    An absent field is unchanged, except that a ban replaces the reason and the end of an earlier ban. In a field of the
    profile, null clears the field. In `erase_at`, null cancels the erasure. Every other field may be null, too, which
    has the same effect as leaving it out.
    """

    model_config = body_like(
        {"status": "disabled", "reason": "spam", "until": "2026-11-27T18:00:00+08:00"}, extra="forbid"
    )

    status: UserStatus | None = Field(default=None, description="A ban (`disabled`) ends every session at once.")
    reason: Reason | None = Field(default=None, description="Why the user is banned. Only staff can see the reason.")
    until: Time | None = Field(
        default=None,
        description="When the ban ends automatically, with an offset. A new ban without `until` has no end.",
    )
    roles: Roles | None = Field(
        default=None, description=f"The complete list of the user's roles, at most {MAX_ROLES}."
    )
    attributes: AttributesPatch | None = Field(
        default=None, description="A merge patch (RFC 7396) of the user's attributes: null removes a name."
    )
    erase_at: OnlyNull = Field(default=None, description="Null cancels an erasure that the user has requested.")


class SessionsQuery(TimedPageQuery):
    """The parameters for the list of the caller's own open sessions.

    By default, a page contains as many sessions as wxauth keeps open for one openid.
    """

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE, description=LIMIT_DESCRIPTION), OrEmpty] = MAX_OPEN_SESSIONS


class SessionAnswer(OpenSession):
    """A login on one device."""

    current: bool = Field(description="Whether this session is the caller's.")


class FieldsForAll(TypedDict):
    """The fields of every response about a user, including responses to other services."""

    nickname: ShownNickname
    avatar_url: ShownPictureUrl
    roles: Annotated[list[str], Field(examples=[[]])]
    status: Literal["active", "disabled"]
    created_at: datetime
    last_login_at: Annotated[
        datetime | None,
        Field(description="Null for an imported user of whom no login is known.", examples=["2026-11-20T08:00:00Z"]),
    ]
    external_id: Annotated[
        str | None,
        Field(description="The user's ID in the system that you used before wxauth. Unique.", examples=["10023"]),
    ]


class PhoneAnswer(TypedDict):
    """A user's phone number, and whether it is verified."""

    phone: Annotated[str | None, Field(description="The phone number in E.164 form.", examples=["+8613800138000"])]
    phone_verified: Annotated[
        bool | None,
        Field(
            description="Whether the phone number button verified the number. False for an imported number, "
            "and null if there is no number.",
            examples=[True],
        ),
    ]


class FieldsForUserAndStaff(FieldsForAll, PhoneAnswer):
    """The fields of every response about a user to that user or to staff."""

    unionid: Annotated[str | None, Field(examples=["oTmHYjg7xLa9Yp4Zt2Vq8nCwRk1E"])]


class DocumentVersion(TypedDict):
    """A version of a document that users agree to."""

    document: Annotated[str, Field(examples=["privacy"])]
    version: Annotated[str, Field(examples=["2026-05"])]


class UserAnswer(FieldsForUserAndStaff):
    """A user, with the identity of the caller's session."""

    id: Annotated[ShownUserId, Field(description="UUIDv7. Your services store their data under this ID.")]
    app_id: ShownAppId
    openid: ShownOpenid
    consents_due: NotRequired[
        Annotated[
            list[DocumentVersion],
            Field(
                description="The documents in force that the user hasn't consented to. Present if the service "
                "requires consents."
            ),
        ]
    ]


class OwnIdentityAnswer(OwnIdentity):
    """One openid in one app."""

    kind: AppKind | None = Field(description="The kind of the app; null if the app is no longer known.")


class OwnIdentitiesAnswer(BaseModel):
    """The caller's identities, the oldest first."""

    items: list[OwnIdentityAnswer]


class FieldsForStaffAndServices(TypedDict):
    """The fields of every response about a user to staff and other services."""

    identities: Annotated[list[IdentityJson], Field(description="The user's identities, the oldest first.")]
    attributes: ShownAttributes
    erase_at: Annotated[
        datetime | None,
        Field(description="When the user will be erased, if they have requested erasure. Otherwise null."),
    ]
    last_seen_at: Annotated[
        datetime | None,
        Field(
            description="The later of the last login and the last refresh of tokens, correct to the day in UTC. "
            "Null if no login is known.",
            examples=["2026-11-20T08:00:00Z"],
        ),
    ]


class FormerExternalIds(TypedDict):
    """The field with a user's former external ids.

    Every response about a user to staff and other services can contain this field, except staff's list of users.
    """

    former_external_ids: NotRequired[
        Annotated[
            list[str],
            Field(
                description="The former external IDs: those of users who were merged into this one, and those that an "
                "import has added. Absent if there are none."
            ),
        ]
    ]


class ListedUserAnswer(FieldsForUserAndStaff, FieldsForStaffAndServices):
    """A user, with all identities."""

    id: ShownUserId
    reason: NotRequired[
        Annotated[str, Field(description="The reason for the ban, for staff only. Absent if there is none.")]
    ]
    until: NotRequired[
        Annotated[datetime, Field(description="When the ban ends automatically. Absent if it has no end.")]
    ]


class UserDetailAnswer(ListedUserAnswer, FormerExternalIds):
    """A user, with all identities and former IDs, recent sessions (open and ended), and the newest consents."""

    former_ids: NotRequired[
        Annotated[
            list[UUID],
            Field(
                description="The IDs of users who were merged into this one, the earliest merge first. Absent if there "
                "are none."
            ),
        ]
    ]
    sessions: Annotated[list[OpenSession], Field(description="The 100 most recently used open sessions.")]
    ended_sessions: Annotated[
        list[PastSession],
        Field(
            description="The 100 most recently used sessions of those that have ended or expired and are still stored."
        ),
    ]
    consents: Annotated[list[ConsentRow], Field(description="The 100 newest consents, including withdrawn consents.")]


class UsersAnswer(TypedDict):
    """A page of users, the newest first."""

    items: list[ListedUserAnswer]
    next_cursor: NextCursor
    incomplete_results: NotRequired[
        Annotated[bool, Field(description="True if the search stopped after a second. Use `next_cursor` to continue.")]
    ]


Answer = TypeVar("Answer", bound=Mapping[str, object])


@cache
def _required_fields(answer_type: Any) -> Sequence[str]:
    required = [name for name in answer_type.__annotations__ if name in answer_type.__required_keys__]
    # `id` comes first, and not after the fields of the base classes. The other names keep their order.
    return sorted(required, key=lambda name: name != "id")


def shown_in(answer_type: type[Answer], user: UserFields) -> Answer:
    """Return a user's values for the required fields of a response. The caller adds the others."""
    names = _required_fields(answer_type)
    answer = dict(zip(names, attrgetter(*names)(user), strict=True))
    if "attributes" in answer and answer["attributes"] is None:  # as stored for a user without attributes
        answer["attributes"] = {}
    return answer  # type: ignore[return-value]  # mypy cannot see that these are the fields of `answer_type`


def user_answer(user: UserInSession, in_force: Mapping[str, str]) -> UserAnswer:
    """Return the response about a user in a session. `in_force` has the version of each document."""
    answer = shown_in(UserAnswer, user)
    if in_force:
        due = missing_from(user.consents, in_force)
        answer["consents_due"] = [{"document": document, "version": version} for document, version in due.items()]
    return answer


def listed_user_answer(user: ListedUser) -> ListedUserAnswer:
    answer = shown_in(ListedUserAnswer, user)
    if user.ban_reason is not None:
        answer["reason"] = user.ban_reason
    if user.banned_until is not None:
        answer["until"] = user.banned_until
    return answer


def users_answer(page: Page[ListedUser]) -> UsersAnswer:
    answer: UsersAnswer = {"items": [listed_user_answer(user) for user in page.items], "next_cursor": page.next_cursor}
    if page.is_incomplete:
        answer["incomplete_results"] = True
    return answer


def is_uploaded_picture(url: str | None, issuer: str) -> TypeGuard[str]:
    """Return whether this URL is of an uploaded picture. Only an upload or an import can set such a URL."""
    return url is not None and url.startswith(issuer + AVATARS_PATH)


def _check_picture_url(value: str, info: ValidationInfo) -> str:
    settings: Settings | None = info.context[Settings] if info.context else None
    is_uploaded = settings is not None and is_uploaded_picture(value, settings.issuer)
    if is_uploaded or _HTTPS_URL.fullmatch(value) or is_stand_in(value):
        return value
    raise ValueError("Must be an https URL. Upload a picture from the phone with POST /v1/me/avatar")


def _cleaned(value: object) -> object:
    return clean_text(value) if isinstance(value, str) else value


def _empty_if_stand_in(value: str) -> str:
    return "" if is_stand_in(value) else value


_NicknameText = Annotated[str, StringConstraints(max_length=MAX_NICKNAME), BeforeValidator(_cleaned)]
_PictureUrl = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=MAX_AVATAR_URL), AfterValidator(_check_picture_url)
]
Nickname = Annotated[_NicknameText, AfterValidator(_empty_if_stand_in)]
AvatarUrl = Annotated[_PictureUrl, AfterValidator(_empty_if_stand_in)]
NICKNAME_ALIASES: Final = AliasChoices("nickname", "nickName", "userName")
AVATAR_URL_ALIASES: Final = AliasChoices("avatar_url", "avatarUrl")


class ProfileChange(Changes, BodyWithRules):
    """The changes to the caller's profile. An absent field is unchanged. A field that is null or empty is cleared."""

    cleaned = ("nickname",)
    titles = dict.fromkeys(map(str, NICKNAME_ALIASES.choices), NICKNAME_REFUSED)
    model_config = body_like({"nickname": "小明"})

    # These types keep the name and the picture that WeChat sends for users who have set none. `changes` then leaves
    # them out. `Nickname` and `AvatarUrl` would make them empty, which would clear the user's name or picture.
    nickname: _NicknameText | None = Field(
        default=None,
        validation_alias=NICKNAME_ALIASES,
        description="Also accepted as `nickName` or `userName`. The name 微信用户, which WeChat sends for every user "
        "without a name, changes nothing.",
    )
    avatar_url: _PictureUrl | None = Field(
        default=None,
        validation_alias=AVATAR_URL_ALIASES,
        description="An https URL. Also accepted as `avatarUrl`. The URL of an uploaded picture changes nothing, nor "
        "does the grey picture that WeChat sends for every user without a picture.",
    )
    phone: Annotated[None, only_null("POST /v1/me/phone with the code of the button")] = Field(
        default=None, description="Null removes the number. Only `POST /v1/me/phone` and a login can set a number."
    )

    def changes(self) -> dict[str, str | None]:
        """Return the new value of each field. None clears a field.

        The name and the picture that WeChat sends for users who have set none are left out. The caller must also leave
        out the URL of an uploaded picture, because this method does not know the issuer.
        """
        requested = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value or None for name, value in requested.items() if not is_stand_in(value)}


def _check_versions(value: object) -> object:
    # The error message of pydantic's own type check would contain a name that the client has sent.
    if not (isinstance(value, dict) and all(isinstance(version, str) for version in value.values())):
        raise ValueError("Must be an object of documents and versions, both text")
    return value


class ConsentsRequest(RootModel[Annotated[dict[str, str], BeforeValidator(_check_versions)]]):
    """The documents that the user agrees to, each with the version in force."""

    model_config = body_like({"privacy": "2026-05"})


class ConsentsQuery(TimedPageQuery):
    """The parameters for the list of the caller's own consents."""

    limit: Annotated[int, Field(ge=1, le=MAX_CONSENTS_PER_PAGE, description=LIMIT_DESCRIPTION), OrEmpty] = (
        MAX_CONSENTS_PER_PAGE
    )
