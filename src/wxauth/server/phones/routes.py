"""`/v1/me/phone`: a person's phone number."""

from typing import Annotated

from fastapi import Depends

from wxauth.errors import (
    CodeUsed,
    InvalidCode,
    PhoneTaken,
    RateLimited,
    Title,
    UnknownApp,
    WeChatUserBlocked,
    WrongAppKind,
)
from wxauth.server.apps.dependencies import AppsDep
from wxauth.server.core.users import UserInSession
from wxauth.server.phones import removing
from wxauth.server.phones.bodies import PhoneRequest
from wxauth.server.phones.phones import Phones
from wxauth.server.users.bodies import UserAnswer, user_answer
from wxauth.server.users.callers import CallerDep, CallerInTurnDep
from wxauth.server.web.answers import WECHAT_FAILURES
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep, provide
from wxauth.server.web.direct import Router

router = Router("me")

PhonesDep = Annotated[Phones, Depends(provide(Phones))]


@router.post(
    "/v1/me/phone",
    summary=Title("Bind my phone number", "绑定我的手机号"),
    failures=[
        UnknownApp,
        WrongAppKind,
        InvalidCode,
        CodeUsed,
        PhoneTaken,
        WeChatUserBlocked,
        RateLimited,
        *WECHAT_FAILURES,
    ],
)
async def bind_my_phone(
    caller: CallerDep, body: PhoneRequest, settings: SettingsDep, apps: AppsDep, phones: PhonesDep
) -> UserAnswer:
    """Bind the number behind a code of the phone button.

    WeChat's answer is kept. After a failure, or if our answer was lost, send the same code again: WeChat is not asked
    again. After `invalid_code` and `code_used`, let the person tap again. After 20 codes in an hour, valid or not, the
    next is `rate_limited`.
    """
    app_id, openid = caller.user.app_id, caller.user.openid
    user = await phones.bind(apps.find(app_id), openid=openid, code=body.code)
    return user_answer(UserInSession.of(user, app_id=app_id, openid=openid), settings.consents)


@router.delete("/v1/me/phone", summary=Title("Remove my phone number", "移除我的手机号"))
async def remove_my_phone(caller: CallerInTurnDep, database: DatabaseDep, clock: ClockDep) -> None:
    """Remove the caller's number. Idempotent. The phone button's next code binds one again."""
    await removing.remove_my_phone(database, clock, caller)
