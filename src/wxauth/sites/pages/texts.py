"""The English texts of the login pages. The catalogues in the folder `locale` contain the translations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.sites.responses import Mistake
from wxauth.sites.waiting import PageState


@dataclass(frozen=True, slots=True)
class Message:
    """The texts of a page that shows only a message."""

    title: Text
    text: Text
    lead: Text | None = None  # a first line for the user
    details: Text | None = None  # for the site's operator


# The page shows the first line of a state in bold.
STATES: Final[Mapping[PageState, Text]] = {
    PageState.WAITING: _("Expires in {time}"),  # the script fills in its placeholder
    PageState.CLAIMED: _("Scanned\nConfirm on your phone."),
    PageState.APPROVED: _("Confirmed\nOne moment…"),
    PageState.DENIED: _("Declined on your phone\nYou can try again."),
    PageState.OVER: _("This QR code is no longer valid\nGet a new QR code."),
}
# On a phone, these texts replace those above.
STATES_ON_A_PHONE: Final[Mapping[PageState, Text]] = {
    PageState.CLAIMED: _("Login code accepted\nConfirm in the mini-program."),
    PageState.OVER: _("This login is no longer valid\nGet a new login code."),
}
STATES_OF_A_DEVICE: Final[Mapping[PageState, Text]] = {
    PageState.APPROVED: _("Confirmed\nGo back to the program."),
    PageState.DENIED: _("Declined on your phone\nTo try again, go back to the program."),
    PageState.OVER: _("This QR code is no longer valid\nTo get a new one, go back to the program."),
}
# The lines for the site's operator below `MESSAGES["mistake"]`.
MISTAKES: Final[Mapping[Mistake, Text]] = {
    Mistake.REQUEST: _("The request is too long or contains a character that isn't allowed."),
    Mistake.CLIENT: _("No site is registered with this client_id."),
    Mistake.REDIRECT_URI: _("The redirect_uri isn't registered for this site."),
    Mistake.DOCUMENT: _(
        "The program's metadata document can't be read or is invalid, or the document's host isn't allowed."
    ),
}
# Messages after a visit to WeChat's page begin with `visit_`. `visit_over` and `visit_gone` are also for other requests
# about a login that is over, or not of this browser.
MESSAGES: Final[Mapping[str, Message]] = {
    "visit_snapshot": Message(
        _("One more tap"),
        _(
            "WeChat is showing only a preview of this page. Tap “使用完整服务” (use the full service) at the bottom, "
            "then try again."
        ),
    ),
    "visit_again": Message(
        _("WeChat hasn't confirmed this login"),
        _("This login took too long, or its page was opened twice. Please try again."),
    ),
    "visit_over": Message(
        _("This login is no longer valid"),
        _("This login has expired or has already been completed. Please start again."),
    ),
    "visit_done": Message(_("You are already logged in"), _("Go back to the site.")),
    "visit_gone": Message(
        _("This login wasn't started here"),
        _(
            "This login was started in another browser or has expired. Nothing has changed in this browser. "
            "To log in, go back to the site and start again. If someone sent you this page, close it."
        ),
    ),
    "visit_away": Message(
        _("Just a moment"),
        _("The service isn't available now. Wait a few seconds, then go back to the site and log in again."),
    ),
    "scanned_outside_wechat": Message(
        _("Scan this QR code with WeChat"),
        _(
            "This QR code is for logging in. Open WeChat, tap “Scan”, and point the camera at the QR code. If you "
            "don't see a QR code, open this address on a computer."
        ),
    ),
    "device": Message(
        _("Log in on another device"),
        _("Open WeChat, tap “Scan”, and point the camera at the QR code on the other screen."),
        details=_("No client accepts login codes that users type. To accept them, set --user-code for the client."),
    ),
    "device_with_user_code": Message(
        _("Log in on another device"),
        _(
            "Open WeChat, tap “Scan”, and point the camera at the QR code on the other screen. You can also open the "
            "mini-program and enter the login code there."
        ),
    ),
    "code_not_typed": Message(
        _("This login code can't be entered"),
        _(
            "The program that shows this login code accepts only its QR code. Open WeChat, tap “Scan”, and point the "
            "camera at the QR code. Nothing has changed, so you can still log in."
        ),
        details=_("The client was added without --user-code. Programs that show no QR code need this option."),
    ),
    "code_of_page": Message(
        _("Enter this login code in the mini-program"),
        _(
            "This login code is from a login page. Open the mini-program in WeChat, and enter the login code there. "
            "Nothing has changed, so you can still log in."
        ),
    ),
    # This message, `logged_out_nowhere` and `wrong_logout` are about a site's mistake. Their texts are for a customer
    # of the site, and their details for the site's operator.
    "mistake": Message(
        _("This login can't continue"),
        _(
            "The site that sent you here made a mistake, so you aren't logged in. Your account hasn't changed. If you "
            "see this page again, tell the site's operator the request ID below."
        ),
        lead=_("Go back to the site and log in again."),
    ),
    "front": Message(
        _("This is a login service"),
        _("It logs you in with WeChat. Open the site or mini-program that you want to use, and log in there."),
    ),
    "limited": Message(_("Too many attempts"), _("Wait a minute, then reload this page.")),
    "used_up": Message(
        _("You have tried too many times"), _("You can't try this login again. Go back to the site and start again.")
    ),
    "away": Message(_("Just a moment"), _("The service isn't available now. Reload this page in a few seconds.")),
    # This message is for a browser that asks for the decision before the user has decided. It is also for a wrong or
    # expired URL with which a mini-program returns to the site (`FORM_POST_PATH`).
    "gone": Message(
        _("Not confirmed yet"),
        _(
            "Confirm on your phone, then reload this page. If the QR code has expired or has already been used, go "
            "back to the site and log in again."
        ),
    ),
    "logged_out": Message(_("You are logged out"), _("Your session on this site has ended.")),
    "logged_out_nowhere": Message(
        _("The site's return address isn't registered"),
        _(
            "The site wanted to send you to an address that it hasn't registered, so you weren't sent there. Your "
            "session on this site has ended. If you see this page again, tell the site's operator the request ID below."
        ),
        lead=_("You are logged out. To return to the site, open it yourself."),
        details=_("The post_logout_redirect_uri isn't one of the client's logout URIs."),
    ),
    "logged_out_of_all": Message(
        _("You are logged out"), _("You are logged out in this browser and on all sites that shared this login.")
    ),
    "stayed": Message(_("You are still logged in"), _("Nothing has changed.")),
    "nobody": Message(
        _("You are not logged in"),
        _("This browser has no login that is shared between sites. To log out of a site, use the site or your phone."),
    ),
    "wrong_logout": Message(
        _("You are still logged in"),
        _(
            "The site that sent you here made a mistake, so nothing has changed. If you can't log out on the site, "
            "tell the site's operator the request ID below."
        ),
        lead=_("Log out on the site or on your phone."),
        details=_("The id_token_hint isn't an id_token of this client, or a parameter is malformed or occurs twice."),
    ),
}
