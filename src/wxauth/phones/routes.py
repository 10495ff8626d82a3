"""The routes `/v1/me/phone` and `/v1/admin/users/{user_id}/phone` for a user's phone number."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import AliasChoices, BaseModel, Field

from wxauth.errors import PhoneTaken, WrongAppKind
from wxauth.i18n import lazy_gettext as _
from wxauth.phones.phones import Phones, remove_phone_of, remove_phone_of_caller
from wxauth.users.admin import read_listed_user
from wxauth.users.admin_routes import NO_SUCH_USER, StaffReadsDep
from wxauth.users.callers import CallerDep, CallerInTurnDep, StaffDep
from wxauth.users.schemas import PhoneAnswer, UserAnswer, shown_in, user_answer
from wxauth.users.staff_read_queries import Read
from wxauth.web.answers import CODE_FAILURES
from wxauth.web.dependencies import ClockDep, DatabaseDep, SettingsDep, provide
from wxauth.web.direct import Router
from wxauth.web.schemas import body_like

router = Router("me")

PhonesDep = Annotated[Phones, Depends(provide(Phones))]


class PhoneRequest(BaseModel):
    """The code that the phone button returned."""

    model_config = body_like({"code": "e31968a7f94cc5ee25fafc2aef2773f0bb8c3937b22520eb8ee345274d00c144"})

    code: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        validation_alias=AliasChoices("code", "phone_code", "phoneCode"),
        description="`detail.code` of `bindgetphonenumber`, not of `wx.login`. The field can also be named "
        "`phone_code` or `phoneCode`. The code works for five minutes.",
        repr=False,
    )


@router.post(
    "/v1/me/phone",
    summary=_("Bind my phone number"),
    failures=[*CODE_FAILURES, WrongAppKind, PhoneTaken],
)
async def bind_my_phone(caller: CallerDep, body: PhoneRequest, settings: SettingsDep, phones: PhonesDep) -> UserAnswer:
    """Bind the number behind a code of the phone button.

    After a failure, or if the response of wxauth was lost, you can send the same code again. wxauth stores WeChat's
    response, and calls WeChat again only if there is none. After `invalid_code` and `code_used`, let the user tap the
    button again. After 20 codes in an hour, valid or not, the next code fails with `rate_limited`.
    """
    return user_answer(await phones.bind(caller.user, body.code), settings.consents)


@router.delete("/v1/me/phone", summary=_("Remove my phone number"))
async def remove_my_phone(caller: CallerInTurnDep, database: DatabaseDep, clock: ClockDep) -> None:
    """Remove the caller's phone number, if there is one. A new code from the phone button can bind a number again."""
    await remove_phone_of_caller(database, clock, caller)


@router.get(
    "/v1/admin/users/{user_id}/phone",
    summary=_("Read a user's phone number"),
    tag="admin",
    failures=[NO_SUCH_USER],
)
async def read_phone_of_user(
    staff: StaffDep, reads: StaffReadsDep, database: DatabaseDep, user_id: UUID
) -> PhoneAnswer:
    """Return the whole number. Other routes mask it for the role `support`.

    The audit trail records who read it, unless `STAFF_READS` is false.
    """
    user = await read_listed_user(database, user_id)
    reads.note_read(staff, Read.PHONE, user.id)
    return shown_in(PhoneAnswer, user)


@router.delete(
    "/v1/admin/users/{user_id}/phone",
    summary=_("Remove a user's phone number"),
    tag="admin",
    failures=[NO_SUCH_USER],
)
async def remove_phone_of_user(staff: StaffDep, database: DatabaseDep, clock: ClockDep, user_id: UUID) -> None:
    """Remove a user's phone number, if there is one. The user may verify it again with the phone button."""
    await remove_phone_of(database, user_id, by=staff, now=clock())
