"""`wxauth webhooks`: where siblings are sent events."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from wxauth.server.cli.asking import Answer, Failed, json_option, minute, print_table, with_services

if TYPE_CHECKING:
    from wxauth.server.core.services import Services
    from wxauth.server.core.trail import EventType
    from wxauth.server.events.webhooks import WithSecret

_DEFAULT_LIMIT = 50


@click.group()
def webhooks() -> None:
    """Where other services are sent events, signed by Standard Webhooks."""


def _webhook_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    import re

    from wxauth.server.core.tables import CLIENT_NAME

    if not re.fullmatch(CLIENT_NAME, value):
        raise click.BadParameter("wants a-z, 0-9, _ and -, the first a letter or digit, at most 64.")
    return value


def _event_types(
    _context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]
) -> "tuple[EventType, ...]":
    from wxauth.server.core.trail import TOLD_TO_SIBLINGS, EventType

    if unknown := [kind for kind in value if kind not in TOLD_TO_SIBLINGS]:
        raise click.BadParameter(f"{unknown[0]} is none of {', '.join(TOLD_TO_SIBLINGS)}.")
    return tuple(EventType(kind) for kind in dict.fromkeys(value))


def _time(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("wants a time such as 2026-11-20T08:00:00Z.") from None
    if time.tzinfo is None:
        raise click.BadParameter("wants a time zone, such as the Z of 2026-11-20T08:00:00Z.")
    return time


_name_argument = click.argument("name", callback=_webhook_name)
_type_option = partial(click.option, "--type", "types", multiple=True, metavar="TYPE", callback=_event_types)


@webhooks.command("list")
@json_option
def list_webhooks(as_json: bool) -> None:
    """Print every webhook, without its secret."""
    from wxauth.server.events.webhook_bodies import webhook_answer
    from wxauth.server.events.webhooks import list_webhooks

    found = [webhook_answer(webhook) for webhook in _asked(list_webhooks)]
    if as_json:
        _print_json(found)
        return
    rows = [
        (
            webhook["name"],
            "enabled" if webhook["is_enabled"] else "disabled",
            webhook["url"],
            ",".join(webhook["types"]) or "all",
        )
        for webhook in found
    ]
    print_table([("NAME", "STATE", "URL", "TYPES"), *rows])


@webhooks.command("add")
@_name_argument
@click.argument("url")
@_type_option(help="A type of events that it is sent; repeat it for several. Without it: all types.")
@json_option
def add_webhook(name: str, url: str, types: "tuple[EventType, ...]", as_json: bool) -> None:
    """Send events to URL from now on, signed with a secret that is shown this once."""
    from wxauth.errors import NameTaken
    from wxauth.server.core.trail import OPERATOR
    from wxauth.server.events.webhooks import add_webhook

    try:
        new = _asked(lambda services: add_webhook(services, name, url=url, types=types, by=OPERATOR))
    except NameTaken:
        raise Failed(f"there is a webhook {name} already. Webhook {name} 已存在。") from None
    _show_secret(new, as_json=as_json)


@webhooks.command("set")
@_name_argument
@click.option("--url", help="The new address.")
@_type_option(help="A type of events that it is sent from now on; repeat it for several.")
@click.option("--all-types", is_flag=True, help="Send it events of all types.")
@click.option(
    "--enable/--disable", "is_enabled", default=None, help="Whether it is sent anything; enabled, it gets what waits."
)
def set_webhook(
    name: str, url: str | None, types: "tuple[EventType, ...]", all_types: bool, is_enabled: bool | None
) -> None:
    """Change a webhook as the options say; the rest stays."""
    from wxauth.server.core.trail import OPERATOR
    from wxauth.server.events.webhooks import change_webhook

    if all_types and types:
        raise click.UsageError("--type and --all-types exclude each other.")
    if url is None and not types and not all_types and is_enabled is None:
        raise click.UsageError("wants --url, --type, --all-types, --enable or --disable.")
    wanted = () if all_types else types or None
    changed = _asked(
        lambda services: change_webhook(services, name, url=url, types=wanted, is_enabled=is_enabled, by=OPERATOR),
        name,
    )
    state = "enabled" if changed["is_enabled"] else "disabled"
    click.echo(f"{name} is {state}, {changed['url']}, types: {','.join(changed['types']) or 'all'}")


@webhooks.command("remove")
@_name_argument
def remove_webhook(name: str) -> None:
    """Send nothing there any more; what waits is dropped."""
    from wxauth.server.core.trail import OPERATOR
    from wxauth.server.events.webhooks import remove_webhook

    _asked(lambda services: remove_webhook(services, name, by=OPERATOR), name)
    click.echo(f"removed {name}")


@webhooks.command("test")
@_name_argument
@json_option
def test_webhook(name: str, as_json: bool) -> None:
    """Send one test message now and print the result. Exit status 1 unless the receiver has accepted it."""
    from wxauth.server.core.trail import OPERATOR
    from wxauth.server.events.webhook_bodies import trial_answer
    from wxauth.server.events.webhooks import try_webhook

    answer = _asked(lambda services: try_webhook(services, name, by=OPERATOR), name)
    if as_json:
        _print_json(trial_answer(answer))
    elif answer.status is not None:
        click.echo(f"{answer.status} in {answer.milliseconds} ms")
    if not answer.is_taken:
        said = answer.error or f"{name} has answered {answer.status}"
        raise Failed(f"{said}. 接收方未接受。")


@webhooks.command("secret")
@_name_argument
@json_option
def renew_secret(name: str, as_json: bool) -> None:
    """Give a webhook another secret, shown this once. For 24 hours the former one signs too."""
    from wxauth.server.core.trail import OPERATOR
    from wxauth.server.events.webhooks import renew_secret

    _show_secret(_asked(lambda services: renew_secret(services, name, by=OPERATOR), name), as_json=as_json)


@webhooks.command("deliveries")
@_name_argument
@click.option("--state", type=click.Choice(("pending", "delivered", "failed")))
@click.option("--limit", type=click.IntRange(1, 200), default=_DEFAULT_LIMIT, show_default=True)
@click.option("--cursor", help="Go on behind a page: its next_cursor.")
@json_option
def list_deliveries(name: str, state: str | None, limit: int, cursor: str | None, as_json: bool) -> None:
    """Print what a webhook was sent and what waits, the newest first."""
    from wxauth.server.events.webhook_bodies import deliveries_answer
    from wxauth.server.events.webhook_rows import State
    from wxauth.server.events.webhooks import list_deliveries
    from wxauth.server.web.paging import id_in_cursor

    try:
        before = None if cursor is None else id_in_cursor(cursor)
    except ValueError:
        raise click.BadParameter("wants the next_cursor of a list.", param_hint="--cursor") from None
    wanted = None if state is None else State(state)
    page = deliveries_answer(
        _asked(lambda services: list_deliveries(services, name, wanted, before=before, limit=limit), name)
    )
    if as_json:
        _print_json(page)
        return
    rows = [
        (
            str(row["event_id"]),
            row["type"],
            row["state"],
            str(row["attempts"]),
            str(row["status"] or row["error"] or "-"),
            "-" if row["next_at"] is None else minute(row["next_at"]),
        )
        for row in page["items"]
    ]
    print_table([("EVENT_ID", "TYPE", "STATE", "ATTEMPTS", "ANSWER", "NEXT_AT"), *rows])
    if page["next_cursor"]:
        click.echo(f"more: --cursor {page['next_cursor']}", err=True)


@webhooks.command("replay")
@_name_argument
@click.option("--event", "event_id", type=click.UUID, help="This one event.")
@click.option("--since", callback=_time, metavar="TIME", help="All events of that time and later.")
@json_option
def replay(name: str, event_id: UUID | None, since: datetime | None, as_json: bool) -> None:
    """Send an event once more, or all events since a time. Types that the webhook does not want are left out."""
    from wxauth.server.events.webhooks import replay

    if (event_id is None) == (since is None):
        raise click.UsageError("wants --event or --since.")
    replayed = _asked(lambda services: replay(services, name, event_id=event_id, since=since), name)
    if as_json:
        _print_json({"replayed": replayed})
    else:
        click.echo(f"{replayed} to be sent again")


def _asked(ask: "Callable[[Services], Awaitable[Answer]]", name: str = "") -> Answer:
    """Call `ask` with the service's parts; the result. Raises: Failed."""
    from wxauth.errors import InvalidRequest, NotFound

    try:
        return with_services(ask)
    except NotFound as exc:
        raise Failed(f"{exc.detail}: {name}. 没有找到 {name}。") from None
    except InvalidRequest as exc:
        raise Failed(exc.detail) from None


def _show_secret(new: "WithSecret", *, as_json: bool) -> None:
    from wxauth.server.events.webhook_bodies import new_webhook_answer

    if as_json:
        _print_json(new_webhook_answer(new))
        return
    print_table([("name", new.webhook["name"]), ("url", new.webhook["url"]), ("secret", new.secret)])
    click.echo("Keep the secret, it is not shown again. 请妥善保存，密钥不会再次显示。", err=True)


def _print_json(value: Mapping[str, Any] | list[Any]) -> None:
    from pydantic_core import to_json

    click.echo(to_json(value).decode())
