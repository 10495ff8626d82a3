"""The pages on which wxauth asks a user, and the state of the scan that they show."""

from datetime import datetime
from enum import StrEnum

from wxauth.core.database import Transaction
from wxauth.errors import NotFound
from wxauth.site_logins import queries
from wxauth.site_logins.asking import PressesUsedUp
from wxauth.site_logins.doors import MAX_PRESSES
from wxauth.site_logins.models import Stage
from wxauth.site_logins.queries import LockedLogin, SiteLogin
from wxauth.site_logins.secrets import NO_SUCH_PAGE


class PageState(StrEnum):
    """The state of a scan, as its page shows it."""

    WAITING = "waiting"
    CLAIMED = "claimed"
    APPROVED = "approved"
    DENIED = "denied"
    OVER = "over"


async def lock_open_page(transaction: Transaction, page: SiteLogin, *, now: datetime) -> LockedLogin:
    """Lock a page, in order to record that its button to WeChat was used. Raises: NotFound."""
    locked = await transaction.row(queries.LOCK, id=page.id, now=now)
    if locked is None or not locked.is_page_open(now):
        raise NotFound(NO_SUCH_PAGE)
    return locked


def next_press(presses: int) -> int:
    """Return the number of the next use of a button. Raises: PressesUsedUp."""
    if presses >= MAX_PRESSES:
        raise PressesUsedUp("the button of one page was pressed too often")
    return presses + 1


def _state(page: SiteLogin, *, now: datetime) -> PageState:
    if page.stage == Stage.REFUSED:
        return PageState.DENIED
    if page.stage == Stage.REDEEMED or page.scan_ends_at <= now:
        return PageState.OVER
    if page.stage in (Stage.APPROVED, Stage.CODED):
        return PageState.APPROVED
    return PageState.CLAIMED if page.stage == Stage.CLAIMED else PageState.WAITING
