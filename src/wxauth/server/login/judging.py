"""WeChat's opinions at a login: on the risk of a new user, and on the nickname in the request."""

import asyncio

from wxauth.errors import AccountDisabled, WeChatUserBlocked
from wxauth.server.core.users import UserFields
from wxauth.server.login.login_rows import LoggedIn
from wxauth.server.profile.nicknames import Nicknames
from wxauth.server.risk.risk import Risk, RiskVerdict
from wxauth.server.users.person import Person


async def judge_login(
    nicknames: Nicknames,
    risk: Risk,
    person: Person,
    login: LoggedIn,
    *,
    nickname: str | None,
    ip: str | None,
    patience: float,
) -> UserFields:
    """Ask WeChat about a stored login. Returns the user, with the nickname unless WeChat rejects it.

    WeChat rates a new user at each login until it has given a rating, and checks a nickname that is not the stored one.
    The login waits for the answer only if the policy is `block`, for at most `patience` seconds.

    Raises: WeChatUserBlocked, if the user has just been banned; AccountDisabled, if a concurrent login has led to the
        ban; StorageUnavailable, if the ban must still be stored.
    """
    is_asked = login.is_unjudged and risk.is_noted
    deciding = risk.judge(person, ip, patience=patience) if is_asked and risk.decides else None
    user = await nicknames.set_at_login(person, login.user, nickname, patience=patience)
    if deciding is not None:
        match await asyncio.shield(deciding):
            case RiskVerdict.BLOCKED:
                blocked = WeChatUserBlocked("WeChat takes this person for a high risk; staff may unban the user")
                blocked.user_id = person.user_id
                raise blocked
            case RiskVerdict.BANNED:
                raise AccountDisabled("this user has just been disabled", user_id=person.user_id)
    elif is_asked:
        risk.note_later(person, ip)
    return user
