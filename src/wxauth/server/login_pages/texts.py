"""The texts of the pages, in English and Chinese.

The message "away" has the texts `away_title` and `away`; the visit "over" has `visit_over_title` and `visit_over`.
"""

from collections.abc import Mapping
from typing import Final

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.server.site_logins.granting import PageState
from wxauth.server.site_logins.queries import Mistake

TEXTS: Final[Mapping[str, Text]] = {
    "log_in_to": _("Log in to {title}"),
    "allow": _("Allow {title}?"),
    "allow_local": _("Allow a program on this computer?"),
    "calls_itself": _("It calls itself “{title}”."),
    "local_program": _("A program on this computer, which calls itself “{title}”."),
    "may_do": _("It could do this for you at {title}:"),
    "elsewhere": _("Open this address on a computer, or in the phone's browser:"),
    "how": _("Scan this code with WeChat."),
    "how_by_app": _("Scan this code with WeChat. It opens the mini-program “{app}”."),
    "picture": _("The code to scan with WeChat"),
    "typed": _("Or open the mini-program and type this code:"),
    "copy": _("Copy"),
    "copied": _("Copied"),
    "back_to": _("Back to {title}"),
    "back": _("Back"),
    "request_id": _("Request id: {request_id}"),
    "renew": _("New code"),
    "no_script": _("Confirm on the phone, then continue here:"),
    "go_on": _("Continue"),
    "going_back": _("Back to the site"),
    "type": _("Open the mini-program in WeChat and type this code:"),
    "type_by_app": _("Open the mini-program “{app}” in WeChat and type this code:"),
    "in_wechat": _("You are in WeChat already. Open the mini-program and type this code:"),
    "in_wechat_by_app": _("You are in WeChat already. Open the mini-program “{app}” and type this code:"),
    "opens": _("WeChat opens, and shows a number to type here."),
    "opens_by_app": _("The mini-program “{app}” opens in WeChat, and shows a number to type here."),
    "another_device": _("Use another device"),
    "another_way": _("Other ways"),
    "another_way_or_device": _("Another way, or another device"),
    "with_another_device": _("Open this page on a computer, or scan with another phone:"),
    "waiting_on_a_phone": _("Confirm in the mini-program, and come back"),
    "claimed_on_a_phone": _("Confirm in the mini-program"),
    "left": _(", {seconds} s left"),
    "over_on_a_phone": _("This login has expired"),
    "in_mini_program": _("You are in the mini-program, which logs you in automatically."),
    "log_in": _("Log in"),
    "log_in_by_code": _("Log in with a code"),
    "log_in_with_wechat": _("Log in with WeChat"),
    "by_computer": _("Log in with WeChat on this device"),
    "type_number": _("Then type the number that WeChat shows:"),
    "number_wrong": _("This number is not right. It is in the mini-program, in WeChat."),
    "number_missing": _("Press the button, confirm in WeChat, and come back with the six digits that it shows."),
    "go_on_as": _("Continue as {name}"),
    "no_name": _("WeChat user"),
    "another": _("Use another account"),
    "not_you": _("You have logged in with this browser before. If this is not you, use another account."),
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
    "try_again": _("Try again"),
    "warning": _("Only scan a code that you requested yourself. If somebody sent you this page, close it."),
    "warning_on_a_phone": _("If somebody sent you this page, close it."),
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
    "asking_site": _("Site: {site}"),
    "parameter": _("Parameter: {parameter}"),
    "received": _("Received address: {received}"),
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
    "logged_out_nowhere_title": _("You are logged out"),
    "logged_out_nowhere": _(
        "The session of this site has ended. The site asked to send you to an address that is not registered."
    ),
    "logged_out_of_all_title": _("You are logged out"),
    "logged_out_of_all": _("The login of this browser has ended, with the sessions of all sites that share it."),
    "log_out_title": _("Log out?"),
    "log_out": _("You are logged in as {name}. Logging out ends the sessions of all sites that share this login."),
    "log_out_button": _("Log out"),
    "stay": _("Stay logged in"),
    "stayed_title": _("You are still logged in"),
    "stayed": _("Nothing has changed."),
    "nobody_title": _("Nobody is logged in"),
    "nobody": _("This browser has no login that sites share. To log out of one site, do so there, or on the phone."),
    "wrong_logout_title": _("You are still logged in"),
    "wrong_logout": _("The site's request to log out is wrong. Log out on the site, or on the phone."),
}
