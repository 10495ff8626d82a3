"""What WeChat thinks of who has just logged in, and of the name that came along."""

import asyncio

from wxauth.core.services import Services
from wxauth.core.tables import UserRow
from wxauth.login.login_rows import LoggedIn
from wxauth.people.person import Person
from wxauth.wechat.opinions import PATIENCE


async def judge_login(
    services: Services, person: Person, login: LoggedIn, *, nickname: str | None, ip: str | None, patience: float
) -> UserRow:
    """The user of a stored login, with the nickname unless that is refused.

    Nothing is asked of a returning user whose nickname is the stored one. WeChat is waited for only where the
    policy is to block, for `patience` seconds or `PATIENCE`.

    A newcomer who hangs up meanwhile is banned all the same. If the process dies first, the newcomer stays unjudged:
    only a user's first login asks.

    Raises: WeChatUserBlocked, where the user has just been banned; StorageUnavailable, where they will be.
    """
    risk, nicknames = services.risk, services.nicknames
    patience = min(patience, PATIENCE)
    deciding = None
    if login.is_new and risk.decides:
        decision = risk.judge(person, ip, patience=patience)
        deciding = services.background.start(decision, name=f"risk of {person.user_id}")
    user = await nicknames.set_at_login(person, login.user, nickname, patience=patience)
    if deciding is not None:
        await asyncio.shield(deciding)
    elif login.is_new and risk.is_noted:
        risk.note_later(person, ip)
    return user
