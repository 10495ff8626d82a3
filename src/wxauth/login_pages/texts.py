"""The English texts of the login pages. The catalogues in the folder `locale` contain the translations.

Most texts belong to a message, which has a title. For example, the message `away` consists of the texts `away_title`
and `away`. The names of the messages after a visit to WeChat's page begin with `visit_`, such as `visit_away`. wxauth
also shows `visit_over` after other requests about a login that is over, and `visit_gone` after other requests about a
login that no longer exists, or that the browser has not started.

On a phone, the page with the QR code shows the texts whose names end with `_on_a_phone`, such as `waiting_on_a_phone`,
instead of the usual texts of the page's states. The texts for `PageState` and `Mistake` have no title, because the page
that contains them has one.
"""

from collections.abc import Mapping
from typing import Final

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.site_logins.pages import PageState
from wxauth.site_logins.responses import Mistake

TEXTS: Final[Mapping[str, Text]] = {
    PageState.WAITING: _("Waiting for your phone"),
    PageState.CLAIMED: _("Scanned. Confirm on your phone."),
    PageState.APPROVED: _("Confirmed. One moment…"),
    PageState.DENIED: _("Declined on your phone"),
    PageState.OVER: _("This QR code is no longer valid"),
    "waiting_on_a_phone": _("Confirm in the mini-program, then come back"),
    "claimed_on_a_phone": _("Confirm in the mini-program"),
    "over_on_a_phone": _("This login is no longer valid"),
    "left": _(", {seconds} s left"),  # follows the text of a state during the last 30 seconds
    "visit_snapshot_title": _("One more tap"),
    "visit_snapshot": _(
        "WeChat is showing only a preview of this page. Tap “使用完整服务” (use the full service) at the bottom, then "
        "try again."
    ),
    "visit_again_title": _("WeChat hasn't confirmed this login"),
    "visit_again": _("This login took too long, or its page was opened twice. Please try again."),
    "visit_over_title": _("This login is no longer valid"),
    "visit_over": _("This login has expired or has already been completed. Please start again."),
    "visit_done_title": _("You are already logged in"),
    "visit_done": _("Go back to the site."),
    "visit_gone_title": _("This login wasn't started here"),
    "visit_gone": _(
        "This login was started in another browser or has expired. Nothing has changed in this browser. "
        "To log in, go back to the site and start again. If someone sent you this page, close it."
    ),
    "visit_away_title": _("Just a moment"),
    "visit_away": _("The service is busy. Wait a few seconds, then go back to the site and log in again."),
    "link_title": _("Scan this QR code with WeChat"),
    "link": _("This QR code is for logging in. Open WeChat, tap “Scan”, and point the camera at the QR code."),
    "device_title": _("Log in on another device"),
    "device": _(
        "Open WeChat, tap “Scan”, and point the camera at the QR code on the other screen. You can also open the "
        "mini-program and enter the login code there."
    ),
    "mistake_title": _("This login can't continue"),
    "mistake": _(
        "The site sent an invalid request, so wxauth didn't return anything to it. Please report this to "
        "the site's operator:"
    ),
    Mistake.REQUEST: _("The request is too long or contains a character that isn't allowed."),
    Mistake.CLIENT: _("No site is registered with this client_id."),
    Mistake.REDIRECT_URI: _("The redirect_uri isn't registered for this site."),
    Mistake.DOCUMENT: _(
        "The program's metadata document can't be read or is invalid, or the document's host isn't allowed."
    ),
    "limited_title": _("Too many attempts"),
    "limited": _("Wait a minute, then reload this page."),
    "used_up_title": _("You have tried too many times"),
    "used_up": _("You can't try this login again. Go back to the site and start again."),
    "away_title": _("Just a moment"),
    "away": _("The service is busy. Reload this page in a few seconds."),
    # This message is for a browser that asks for the decision before the user has decided. It is also for a wrong or
    # expired URL with which a mini-program returns to the site (`FORM_POST_PATH`).
    "gone_title": _("Not confirmed yet"),
    "gone": _(
        "Confirm on your phone, then reload this page. If the QR code has expired or has already been used, go "
        "back to the site and log in again."
    ),
    "logged_out_title": _("You are logged out"),
    "logged_out": _("Your session on this site has ended."),
    "logged_out_nowhere_title": _("The site's return address isn't registered"),
    "logged_out_nowhere": _(
        "The site requested a redirect to an address that isn't registered, so you weren't redirected. "
        "You are logged out, and your session on this site has ended."
    ),
    "logged_out_of_all_title": _("You are logged out"),
    "logged_out_of_all": _("You are logged out in this browser and on all sites that shared this login."),
    "stayed_title": _("You are still logged in"),
    "stayed": _("Nothing has changed."),
    "nobody_title": _("You are not logged in"),
    "nobody": _(
        "This browser has no login that is shared between sites. To log out of a site, use the site or your phone."
    ),
    "wrong_logout_title": _("You are still logged in"),
    "wrong_logout": _("The site's log-out request is invalid. Log out on the site or on your phone."),
}
