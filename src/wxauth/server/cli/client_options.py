"""The options of `wxauth clients add` and `set`, for services and for sites."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from wxauth.server.clients.clients import ID_TOKEN_ALGS, WrongClient
from wxauth.server.clients.models import DEFAULT_SITE_SCOPES, SITE_SCOPE_NAMES, Scope
from wxauth.server.users.attributes import typed_attribute

Command = TypeVar("Command", bound=Callable[..., object])

_HINTS: Final = {
    "name": "NAME",
    "scopes": "--scope",
    "redirect_uris": "--redirect-uri",
    "logout_uris": "--logout-uri",
    "device": "--device",
    "is_public": "--public",
    "app_id": "--app",
    "account_app_id": "--account",
    "website_app_id": "--website",
    "title": "--title",
    "backchannel_logout_uri": "--backchannel-logout-uri",
    "near": "--near",
    "user_code": "--user-code",
    "email_domain": "--email-domain",
    "link": "--link",
    "sso": "--sso",
    "phone_id_token": "--phone-id-token",
    "pkce": "--no-pkce",
    "id_token_alg": "--id-token-alg",
    "claims": "--claim",
}
_REDIRECT_URI = "A redirect_uri: https, or http on a loopback address. Repeatable."
_LOGOUT_URI = "A post_logout_redirect_uri. Repeatable."
_SCOPE = (
    f"Scopes of a service: {', '.join(Scope)}; by default introspect. Scopes of a site: "
    f"{' and '.join(DEFAULT_SITE_SCOPES)} (by default), "
    f"{', '.join(name for name in SITE_SCOPE_NAMES if name not in DEFAULT_SITE_SCOPES)}. Repeatable."
)


def _claims(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any] | None:
    """The template of `NAME=VALUE`s; empty for one empty text; None without any."""
    template: dict[str, Any] = {}
    for given in values:
        name, equals, value = given.partition("=")
        if given and not equals:
            raise click.BadParameter("must be NAME=VALUE.")
        if given:
            template[name] = typed_attribute(value)
    return template if values else None


def client_options(*, is_change: bool) -> Callable[[Command], Command]:
    """Add the options to a command, named like the client's fields. `set` can also remove an optional value."""

    def flag(name: str, help_text: str) -> Any:
        switch = f"--{name}/--no-{name}" if is_change else f"--{name}"
        return click.option(switch, default=None, is_flag=True, help=help_text)

    def text(option: str, name: str, metavar: str, help_text: str) -> Any:
        return click.option(option, name, metavar=metavar, help=f"{help_text} Empty: none." if is_change else help_text)

    options = (
        click.option("--redirect-uri", "redirect_uris", multiple=True, metavar="URI", help=_REDIRECT_URI),
        click.option("--logout-uri", "logout_uris", multiple=True, metavar="URI", help=_LOGOUT_URI),
        flag("device", "Allow the device grant: it shows a code itself (RFC 8628)."),
        text("--app", "app_id", "APP_ID", "The app whose code is shown; by default the default app."),
        text("--account", "account_app_id", "APP_ID", "The service account for its pages in WeChat's browser."),
        text("--website", "website_app_id", "APP_ID", "The website app for computers with WeChat, beside the code."),
        text("--title", "title", "TITLE", "Its name on the phone; by default NAME."),
        click.option(
            "--scope",
            "scopes",
            multiple=True,
            type=click.Choice([*map(str, Scope), *SITE_SCOPE_NAMES]),
            metavar="SCOPE",
            help=_SCOPE + (" Replaces all: name those that it keeps, too." if is_change else ""),
        ),
        text(
            "--backchannel-logout-uri",
            "backchannel_logout_uri",
            "URI",
            "Where to send a logout token when one of its sessions ends.",
        ),
        flag("near", "Require phone and browser to be in one network."),
        flag("user-code", "Allow its codes to be typed, too."),
        text(
            "--email-domain", "email_domain", "DOMAIN", "Give users the address <user id>@DOMAIN, which nobody reads."
        ),
        flag("link", "Log in a phone's browser outside WeChat by a link to WeChat and a number (SCAN_LINK)."),
        flag("sso", "Share the browser's login with other such sites: who has scanned for one goes on to the next."),
        flag("phone-id-token", "Give its id_tokens to mini-programs and mobile apps, for a back end such as Supabase."),
        click.option(
            "--no-pkce",
            "pkce",
            flag_value="optional",
            help="Let it leave PKCE out: you vouch that it checks the nonce. Needs a secret.",
        ),
        *([click.option("--pkce", "pkce", flag_value="required", help="Require PKCE again.")] if is_change else []),
        click.option(
            "--id-token-alg",
            type=click.Choice(ID_TOKEN_ALGS),
            help="The algorithm of its id_tokens: RS256 by default; ES256 for products that accept nothing else.",
        ),
        click.option(
            "--claim",
            "claims",
            multiple=True,
            callback=_claims,
            metavar="NAME=VALUE",
            help="A claim of its tokens, such as tier=$attributes.tier; a VALUE that is JSON is JSON. Repeatable."
            + (" Empty: none." if is_change else ""),
        ),
    )

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def changes_in(options: dict[str, Any]) -> dict[str, Any]:
    """The changes that the given options request; an empty text removes a value. Raises: click.UsageError."""
    named = {name: value for name, value in options.items() if value not in (None, ())}
    if not named:
        raise click.UsageError("--scope or another option must be given. 请至少指定一个选项。")
    return {
        name: [each for each in value if each] if isinstance(value, tuple) else None if value == "" else value
        for name, value in named.items()
    }


@contextmanager
def refused_as_wrong_call() -> Iterator[None]:
    """Convert a refused field of a client into an error about its option. Raises: click.BadParameter."""
    try:
        yield
    except WrongClient as exc:
        ((field, text),) = exc.errors
        raise click.BadParameter(f"{text}.", param_hint=_HINTS[field]) from None
