"""The texts of the pages, in English and Chinese.

The message "away" has the texts `away_title` and `away`; the visit "over" has `visit_over_title` and `visit_over`.
"""

from collections.abc import Mapping
from typing import Final

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.site_logins.granting import PageState
from wxauth.site_logins.queries import Mistake

TEXTS: Final[Mapping[str, Text]] = {
    "waiting_on_a_phone": _("Confirm in the mini-program, and come back"),
    "claimed_on_a_phone": _("Confirm in the mini-program"),
    "left": _(", {seconds} s left"),
    "over_on_a_phone": _("This login has expired"),
    "visit_snapshot_title": _("One more tap"),
    "visit_snapshot": _(
        "WeChat shows a preview of this page. Tap “使用完整服务” (use the full service) at the bottom, then try again."
    ),
    "visit_again_title": _("WeChat has not confirmed this login"),
    "visit_again": _("It took too long, or was opened twice. Please try again."),
    "visit_over_title": _("This login has expired"),
    "visit_over": _("It has been used, or took too long. Please start again."),
    "visit_done_title": _("You are already logged in"),
    "visit_done": _("Go back to the site."),
    "visit_gone_title": _("This login was not started here"),
    "visit_gone": _(
        "It was started in another browser, or has expired, so nothing has happened. To log in, go back to the "
        "site and start again. If somebody sent you this page, close it."
    ),
    "visit_away_title": _("One moment"),
    "visit_away": _("The service is busy. Go back to the site and log in again in a few seconds."),
    PageState.WAITING: _("Waiting for the phone"),
    PageState.CLAIMED: _("Scanned. Confirm on the phone"),
    PageState.APPROVED: _("Done, one moment"),
    PageState.DENIED: _("Refused on the phone"),
    PageState.OVER: _("This code has expired"),
    "link_title": _("Scan this with WeChat"),
    "link": _("This code is for logging in. Open WeChat, tap “Scan”, and point the camera at it."),
    "device_title": _("Log in on another screen"),
    "device": _(
        "Open WeChat, tap “Scan”, and point the camera at the code on the other screen; or open the mini-program "
        "and type the code there."
    ),
    Mistake.REQUEST: _("The request is too long, or has a character that is not allowed."),
    Mistake.CLIENT: _("No site has this client_id."),
    Mistake.REDIRECT_URI: _("The redirect_uri is not registered for this site."),
    Mistake.DOCUMENT: _(
        "The description of this program cannot be read, breaks a rule, or is of a host that is not allowed here."
    ),
    "mistake_title": _("This login does not work"),
    "mistake": _("The fault is in the site, and nothing was sent to it. Please tell its operator:"),
    "limited_title": _("Too many attempts"),
    "limited": _("Wait a minute, then load this page again."),
    "used_up_title": _("Too many tries"),
    "used_up": _("This login cannot be tried again. Go back to the site and start again."),
    "away_title": _("One moment"),
    "away": _("The service is busy. Load this page again in a few seconds."),
    "gone_title": _("Not confirmed"),
    "gone": _(
        "Confirm on the phone, then load this page again. If the code has expired or been used, go back to the "
        "site and log in again."
    ),
    "logged_out_title": _("You are logged out"),
    "logged_out": _("The session of this site has ended."),
    "logged_out_nowhere_title": _("The site's address is not registered"),
    "logged_out_nowhere": _(
        "The site asked to send you to an address that is not registered, so you stay here. You are logged out: the "
        "session of this site has ended."
    ),
    "logged_out_of_all_title": _("You are logged out"),
    "logged_out_of_all": _("The login of this browser has ended, with the sessions of all sites that share it."),
    "stayed_title": _("You are still logged in"),
    "stayed": _("Nothing has changed."),
    "nobody_title": _("Nobody is logged in"),
    "nobody": _("This browser has no login that sites share. To log out of one site, do so there, or on the phone."),
    "wrong_logout_title": _("You are still logged in"),
    "wrong_logout": _("The site's request to log out is wrong. Log out on the site, or on the phone."),
}
