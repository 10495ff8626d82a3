"""The options of `wxauth clients add`, some of which make an OAuth client of a service client."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from wxauth.oauth.client_rows import OAuthClient
    from wxauth.siblings.clients import Scope

Command = TypeVar("Command", bound=Callable[..., object])

_MAKING: Final = ("redirect_uris", "may_scan")
"""One of these makes an OAuth client; the others say more about one."""
_FLAGS: Final = {
    "redirect_uris": "--redirect-uri",
    "logout_uris": "--logout-uri",
    "may_scan": "--device",
    "is_public": "--public",
    "app_id": "--app",
    "title": "--title",
    "is_near": "--near",
    "takes_user_codes": "--user-code",
    "email_domain": "--email-domain",
}
SCOPES: Final = ("introspect", "access_token", "users", "phones", "events")
"""What a service may do, as siblings do; a test compares them with what there is."""


def _uris(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    from wxauth.oauth.uris import check_uri

    try:
        return tuple(dict.fromkeys(check_uri(value) for value in values))
    except ValueError as exc:
        raise click.BadParameter(f"{exc}.") from None


def _matching(pattern: str, wanted: str) -> Callable[..., str | None]:
    def check(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
        import re

        if value is not None and not re.fullmatch(pattern, value):
            raise click.BadParameter(wanted)
        return value

    return check


def oauth_options(command: Command) -> Command:
    """Add the options; the command gets all of them as keywords, for `asked_for`."""
    for option in reversed(
        (
            click.option(
                "--redirect-uri", "redirect_uris", multiple=True, callback=_uris, metavar="URI", help=_REDIRECT_URI
            ),
            click.option("--logout-uri", "logout_uris", multiple=True, callback=_uris, metavar="URI", help=_LOGOUT_URI),
            click.option("--device", "may_scan", is_flag=True, help="It shows a code itself (RFC 8628)."),
            click.option("--public", "is_public", is_flag=True, help="It keeps no secret: a page, a program."),
            click.option(
                "--app",
                "app_id",
                metavar="APP_ID",
                callback=_matching(r"[A-Za-z0-9_-]{1,64}", "wants the app_id of a mini-program."),
                help="Whose mini-program's code is shown; else the default app's.",
            ),
            click.option(
                "--title",
                callback=_matching(r"[^\x00-\x1f\x7f]{1,64}", "wants 1 to 64 characters, none of them a control."),
                help="What the phone calls it; else NAME.",
            ),
            click.option("--scope", "scopes", multiple=True, help=_SCOPE),
            click.option("--near", "is_near", is_flag=True, help="Phone and browser must be in one network."),
            click.option("--user-code", "takes_user_codes", is_flag=True, help="Its codes may be typed, too."),
            click.option(
                "--email-domain",
                metavar="DOMAIN",
                callback=_matching(r"(?=.{1,200}\Z)[a-z0-9-]+(\.[a-z0-9-]+)+", "wants a domain like example.com."),
                help="People get the address <user id>@DOMAIN, which nobody reads.",
            ),
        )
    ):
        command = option(command)
    return command


def asked_for(name: str, options: dict[str, Any]) -> "tuple[Sequence[Scope], OAuthClient | None]":
    """What the client may do as a sibling, and the site that it is, if it is one. Raises: click.UsageError."""
    from wxauth.oauth.client_rows import OAuthClient
    from wxauth.oauth.clients import DEFAULT_SCOPES, NameReserved, check_name
    from wxauth.oauth.clients import SCOPES as SCOPES_OF_SITES
    from wxauth.siblings.clients import DEFAULT_SCOPES as DEFAULT_SCOPES_OF_SIBLINGS
    from wxauth.siblings.clients import in_order, is_own_name

    if is_own_name(name):  # our own pages are clients too, which are made without a command
        raise click.BadParameter("names that begin with wxauth are wxauth's own.", param_hint="NAME")
    is_site = any(options[option] for option in _MAKING)
    given = [flag for option, flag in _FLAGS.items() if options[option]]
    if given and not is_site:
        raise click.UsageError(f"{given[0]} wants --redirect-uri or --device beside it: it is for a site.")
    known = (*SCOPES, *SCOPES_OF_SITES) if is_site else SCOPES
    for scope in options["scopes"]:
        if options["is_public"] and scope in SCOPES:
            raise click.BadParameter(f"{scope} is for services with a secret.", param_hint="--scope")
        if scope not in known:
            raise click.BadParameter(f"wants one of {', '.join(known)}.", param_hint="--scope")
    if not is_site:
        return in_order(options["scopes"] or DEFAULT_SCOPES_OF_SIBLINGS), None
    if options["is_public"] and options["may_scan"]:
        raise click.UsageError("--public excludes --device: anybody could show a code in its name.")
    if options["logout_uris"] and not options["redirect_uris"]:
        raise click.UsageError("--logout-uri wants --redirect-uri beside it.")
    try:
        check_name(name)
    except NameReserved as exc:
        raise click.BadParameter(f"{name} cannot be a site's name: {exc}.", param_hint="NAME") from None
    asked = [scope for scope in SCOPES_OF_SITES if scope in options["scopes"]] or DEFAULT_SCOPES
    return in_order(options["scopes"]), OAuthClient(
        name=name, **{**options, "title": options["title"] or name, "scopes": asked}
    )


_REDIRECT_URI = "Where browsers go with a code; https, or http on a loopback address. Repeatable."
_LOGOUT_URI = "Where browsers may go after signing out. Repeatable."
_SCOPE = (
    f"What it may do: {', '.join(SCOPES)}; by default introspect. What a site may ask for: openid and profile (by "
    "default), phone, email, roles, offline_access. Repeatable."
)
