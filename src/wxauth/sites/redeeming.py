"""The redemption of an approved login, which opens the site's session."""

import re
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID

from wxauth.core.database import Database, Transaction
from wxauth.core.trail import SYSTEM
from wxauth.core.users import UserInSession
from wxauth.random_secrets import hash_of
from wxauth.sessions.queries import (
    END_OLDER_SESSIONS_OF_BROWSER_LOGIN,
    OPENED_AT,
    EndReason,
    end_selected,
    end_session_of_locked_user,
)
from wxauth.sites import queries
from wxauth.sites.authorization_codes import is_still_approved, lock_user_and_login
from wxauth.sites.door import REPEATED_WITHIN, WECHAT_PAGE_DOORS
from wxauth.sites.models import Stage
from wxauth.sites.queries import LockedLogin, SiteLogin
from wxauth.tokens import base64url

_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)  # RFC 7636, section 4.1
# React's StrictMode sends each code twice during development, with its verifier. The session stays open.
PUBLIC_CLIENT_REPEATS_WITHIN: Final = timedelta(seconds=2)
SLOW_DOWN_SECONDS: Final = 5  # longer after each poll that came too early (RFC 8628)
# The limit is per site, because a site's page can silently open a session each time it is loaded.
_MAX_SESSIONS_OF_BROWSER_LOGIN: Final = 20


def challenge_of(verifier: str) -> str | None:
    """Return the challenge of a PKCE verifier (RFC 7636, section 4.2); None if the text cannot be a verifier."""
    if not _VERIFIER.fullmatch(verifier):
        return None
    return base64url(sha256(verifier.encode()).digest()).decode()


class Redeemed(NamedTuple):
    """The login that has given a site its session, and the user of that login."""

    login: LockedLogin
    user: UserInSession


class NotRedeemed(StrEnum):
    UNKNOWN = "unknown"  # also if a code is sent again so soon that the session stays open
    SPENT = "spent"  # redeemed before; if an authorization code is used again, wxauth ends its session
    PENDING = "pending"
    TOO_FAST = "too_fast"  # undecided, too
    DENIED = "denied"  # by the user, or because the user, the approval or the code is no longer valid
    OVER = "over"  # not decided in time


async def login_of_code(
    database: Database, code: str, *, client_id: str, redirect_uri: str, code_challenge: str | None
) -> SiteLogin | None:
    """Return the login of an authorization code, if its request had this client, redirect URI and challenge."""
    login = await database.row(queries.BY_CODE, code_hash=hash_of(code))
    request = (client_id, redirect_uri, code_challenge)
    if login is None or (login.client_id, login.redirect_uri, login.code_challenge) != request:
        return None
    return login


async def redeem(
    transaction: Transaction,
    found_login: SiteLogin,
    *,
    session_id: UUID,
    resource_title: str | None = None,
    repeats_within: timedelta = timedelta(0),
    expires_at: datetime,
    now: datetime,
) -> Redeemed | NotRedeemed:
    """Open the session of a login that was found by an authorization code or a device code, or return why not.

    A used authorization code ends its session, because somebody else might have the code and the verifier. If a code
    with a challenge is sent again within `repeats_within`, the session stays open.
    """
    # Only a device redeems a login that has no authorization code.
    if found_login.code_hash is None and found_login.stage != Stage.APPROVED:
        return await _refuse_poll(transaction, found_login, now=now)
    login, user = await lock_user_and_login(transaction, found_login, now=now)
    if login is None or login.code_hash != found_login.code_hash:
        # The login was deleted, its site was removed, or a newer authorization code has just replaced this one.
        return NotRedeemed.UNKNOWN
    if login.stage == Stage.REDEEMED:
        return await _refuse_used_code(transaction, login, repeats_within=repeats_within, now=now)
    until = login.granted_until if login.code_hash is None else login.code_expires_at
    if user is None or not is_still_approved(login, until, now=now):
        return NotRedeemed.DENIED
    await _open_session(
        transaction,
        login,
        user,
        session_id=session_id,
        resource_title=resource_title,
        expires_at=expires_at,
        now=now,
    )
    return Redeemed(login, user)


async def _open_session(
    transaction: Transaction,
    login: LockedLogin,
    user: UserInSession,
    *,
    session_id: UUID,
    resource_title: str | None,
    expires_at: datetime,
    now: datetime,
) -> None:
    login.stage, login.session_id = Stage.REDEEMED, session_id
    await queries.save(transaction, login)
    await transaction.run(
        queries.OPEN_SESSION,
        id=login.id,
        session_id=session_id,
        user_id=user.id,
        client_name=login.title,
        resource_title=resource_title,
        expires_at=expires_at,
        now=now,
    )
    if login.browser_login_id is not None:
        parameters = {
            "session_id": session_id,
            "browser_login_id": login.browser_login_id,
            "at_most": _MAX_SESSIONS_OF_BROWSER_LOGIN,
        }
        await end_selected(
            transaction, END_OLDER_SESSIONS_OF_BROWSER_LOGIN, parameters, reason=EndReason.REPLACED, by=SYSTEM, now=now
        )


async def _refuse_poll(transaction: Transaction, login: SiteLogin, *, now: datetime) -> NotRedeemed:
    """Return why a device that polls gets no session. If the user has not decided yet, store the time of the poll."""
    if login.stage == Stage.REDEEMED:
        return NotRedeemed.SPENT
    if login.stage == Stage.REFUSED:
        return NotRedeemed.DENIED
    if login.scan_ends_at <= now:
        return NotRedeemed.OVER
    is_too_early = await transaction.value(queries.POLL, id=login.id, extra_seconds=SLOW_DOWN_SECONDS, now=now)
    return NotRedeemed.TOO_FAST if is_too_early else NotRedeemed.PENDING


async def _refuse_used_code(
    transaction: Transaction, login: LockedLogin, *, repeats_within: timedelta, now: datetime
) -> NotRedeemed:
    # A repeated device code ends no session, and an erased user has none.
    if login.code_hash is None or login.user_id is None or login.session_id is None:
        return NotRedeemed.SPENT
    grace = REPEATED_WITHIN if login.door in WECHAT_PAGE_DOORS else timedelta(0)
    if login.code_challenge is not None:
        grace = max(grace, repeats_within)
    if grace:
        opened_at = await transaction.value(OPENED_AT, session_id=login.session_id)
        if opened_at is not None and now < opened_at + grace:
            return NotRedeemed.UNKNOWN
    # The session belongs to the user of the login's identity, whom the caller has locked.
    await end_session_of_locked_user(
        transaction, login.user_id, login.session_id, reason=EndReason.REUSED, by=SYSTEM, now=now
    )
    return NotRedeemed.SPENT
