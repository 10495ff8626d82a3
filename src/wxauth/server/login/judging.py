"""WeChat's opinions at a login: on the risk of a newcomer, and on the nickname that came along."""

import asyncio

from wxauth.errors import AccountDisabled, WeChatUserBlocked
from wxauth.server.core.services import Services
from wxauth.server.core.users import UserRow
from wxauth.server.login.login_rows import LoggedIn
from wxauth.server.profile.nicknames import Nicknames
from wxauth.server.risk.risk import Risk, Verdict
from wxauth.server.users.person import Person


async def judge_login(
    services: Services, person: Person, login: LoggedIn, *, nickname: str | None, ip: str | None, patience: float
) -> UserRow:
    """The user of a stored login, with the nickname unless that is refused.

    WeChat is asked about the risk of newcomers, at each login until it has said it, and about a nickname that is not
    the stored one. Its answer is waited for only where the policy is to block, for `patience` seconds at most.

    Raises: WeChatUserBlocked, where the user has just been banned; AccountDisabled, where another login of theirs led
        to that meanwhile; StorageUnavailable, where they will be.
    """
    risk, nicknames = services[Risk], services[Nicknames]
    is_asked = login.is_unjudged and risk.is_noted
    deciding = risk.judge(person, ip, patience=patience) if is_asked and risk.decides else None
    user = await nicknames.set_at_login(person, login.user, nickname, patience=patience)
    if deciding is not None:
        match await asyncio.shield(deciding):
            case Verdict.BLOCKED:
                blocked = WeChatUserBlocked("WeChat takes this person for a high risk; staff may unban the user")
                blocked.user_id = person.user_id
                raise blocked
            case Verdict.BANNED:
                raise AccountDisabled("this user has just been disabled", user_id=person.user_id)
    elif is_asked:
        risk.note_later(person, ip)
    return user
