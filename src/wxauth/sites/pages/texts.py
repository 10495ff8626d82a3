"""The English texts of the login pages. The catalogues in the folder `locale` contain the translations.

A message such as `away` has a title (`away_title`). It can have a first line for the user (`…_lead`), and details for
the site's developer (`…_details`). Messages after a visit to WeChat's page begin with `visit_`. `visit_over` and
`visit_gone` are also for other requests about a login that is over, or not of this browser. The texts for `PageState`
and `Mistake` have no title, because the page that contains them has one. On a phone, the page with the QR code shows
the texts that end with `_on_a_phone`.
"""

from collections.abc import Mapping
from typing import Final

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.sites.responses import Mistake
from wxauth.sites.waiting import PageState

TEXTS: Final[Mapping[str, Text]] = {
    PageState.WAITING: _("Expires in {time}"),  # the script fills in its placeholder
    # The page shows the first line of a state in bold.
    PageState.CLAIMED: _("Scanned\nConfirm on your phone."),
    PageState.APPROVED: _("Confirmed\nOne moment…"),
    PageState.DENIED: _("Declined on your phone\nYou can try again."),
    PageState.OVER: _("This QR code is no longer valid\nGet a new QR code."),
    "claimed_on_a_phone": _("Login code accepted\nConfirm in the mini-program."),
    "over_on_a_phone": _("This login is no longer valid\nGet a new login code."),
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
    "visit_away": _("The service isn't available now. Wait a few seconds, then go back to the site and log in again."),
    "link_title": _("Scan this QR code with WeChat"),
    "link": _("This QR code is for logging in. Open WeChat, tap “Scan”, and point the camera at the QR code."),
    "device_title": _("Log in on another device"),
    "device": _(
        "Open WeChat, tap “Scan”, and point the camera at the QR code on the other screen. You can also open the "
        "mini-program and enter the login code there."
    ),
    # These messages are about a site's mistake. They speak to a customer of the site, and the details to its developer.
    "mistake_title": _("This login can't continue"),
    "mistake_lead": _("Go back to the site and log in again."),
    "mistake": _(
        "The site that sent you here made a mistake, so you aren't logged in. Your account hasn't changed. If you see "
        "this page again, tell the site's operator the request ID below."
    ),
    Mistake.REQUEST: _("The request is too long or contains a character that isn't allowed."),
    Mistake.CLIENT: _("No site is registered with this client_id."),
    Mistake.REDIRECT_URI: _("The redirect_uri isn't registered for this site."),
    Mistake.DOCUMENT: _(
        "The program's metadata document can't be read or is invalid, or the document's host isn't allowed."
    ),
    "front_title": _("This is a login service"),
    "front": _("It logs you in with WeChat. Open the site or mini-program that you want to use, and log in there."),
    "limited_title": _("Too many attempts"),
    "limited": _("Wait a minute, then reload this page."),
    "used_up_title": _("You have tried too many times"),
    "used_up": _("You can't try this login again. Go back to the site and start again."),
    "away_title": _("Just a moment"),
    "away": _("The service isn't available now. Reload this page in a few seconds."),
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
    "logged_out_nowhere_lead": _("You are logged out. To return to the site, open it yourself."),
    "logged_out_nowhere": _(
        "The site wanted to send you to an address that it hasn't registered, so you weren't sent there. Your session "
        "on this site has ended. If you see this page again, tell the site's operator the request ID below."
    ),
    "logged_out_nowhere_details": _("The post_logout_redirect_uri isn't one of the client's logout URIs."),
    "logged_out_of_all_title": _("You are logged out"),
    "logged_out_of_all": _("You are logged out in this browser and on all sites that shared this login."),
    "stayed_title": _("You are still logged in"),
    "stayed": _("Nothing has changed."),
    "nobody_title": _("You are not logged in"),
    "nobody": _(
        "This browser has no login that is shared between sites. To log out of a site, use the site or your phone."
    ),
    "wrong_logout_title": _("You are still logged in"),
    "wrong_logout_lead": _("Log out on the site or on your phone."),
    "wrong_logout": _(
        "The site that sent you here made a mistake, so nothing has changed. If you can't log out on the site, tell "
        "the site's operator the request ID below."
    ),
    "wrong_logout_details": _(
        "The id_token_hint isn't an id_token of this client, or a parameter is malformed or occurs twice."
    ),
}
