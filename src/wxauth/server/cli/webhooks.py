"""`wxauth webhooks`: manage webhooks."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import click
from pydantic import StringConstraints, TypeAdapter

from wxauth.server.cli.printing import (
    SHOWN_ONCE,
    Failed,
    WrongCall,
    checked,
    json_option,
    more,
    page_options,
    show,
    state_of,
    table,
    time_option,
)
from wxauth.server.cli.resources import T, with_parts
from wxauth.server.clients.models import CLIENT_NAME
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.services import Parts
from wxauth.server.core.settings import Settings
from wxauth.server.core.terminal import Text, WrongValue, say, word
from wxauth.server.core.trail import OPERATOR, SENT_TO_SIBLINGS, EventType
from wxauth.server.events.logout_tokens import BackchannelLogouts
from wxauth.server.events.models import DeliveryState
from wxauth.server.events.webhook_deliveries import Deliveries
from wxauth.server.events.webhooks import NewWebhookAnswer, Webhooks
from wxauth.server.keys.keyring import KeyRing, key_ring_of
from wxauth.server.outbound.receivers import ReceiverTransport
from wxauth.server.outbound.urls import NameResolver
from wxauth.server.web.bodies import all_of, items_of

_RULE: Final = "must be a-z, 0-9, _ and -, the first a letter or digit, at most 64"
_check_name = checked(TypeAdapter(Annotated[str, StringConstraints(pattern=f"^{CLIENT_NAME}$")]).validate_python, _RULE)
_name_argument = click.argument("webhook_name", metavar="NAME", callback=_check_name)


def _event_types(given: tuple[str, ...]) -> tuple[EventType, ...]:
    if unknown := [kind for kind in given if kind not in SENT_TO_SIBLINGS]:
        raise WrongValue("{type} is none of {types}", type=unknown[0], types=", ".join(SENT_TO_SIBLINGS))
    return tuple(EventType(kind) for kind in dict.fromkeys(given))


_type_option = partial(click.option, "--type", "types", multiple=True, metavar="TYPE", callback=checked(_event_types))


@click.group()
def webhooks() -> None:
    """Manage webhooks, which send events to other services. Messages are signed as Standard Webhooks specifies."""


@webhooks.command()
@json_option
def list_command(as_json: bool) -> None:
    """Print every webhook, without its secret."""
    found = [webhook.shown for webhook in _with_webhooks(lambda webhooks: webhooks.all())]
    show(all_of(found), table(found, "name state url types", state=state_of, types=_types_of), as_json=as_json)


@webhooks.command()
@_name_argument
@click.argument("url")
@_type_option(help="A type of events to send; repeatable. Without it: all types.")
@json_option
def add_command(webhook_name: str, url: str, types: tuple[EventType, ...], as_json: bool) -> None:
    """Add a webhook that sends events to URL, and print its secret, this once."""
    new = _with_webhooks(lambda webhooks: webhooks.add(webhook_name, url=url, types=types, by=OPERATOR))
    _show_secret(new, as_json=as_json)


@webhooks.command()
@_name_argument
@click.option("--url", help="The new address.")
@_type_option(help="A type of events to send from now on; repeatable.")
@click.option("--all-types", is_flag=True, help="Send events of all types.")
@click.option(
    "--enable/--disable",
    "is_enabled",
    default=None,
    help="Whether events are sent. Once enabled, it gets what has waited.",
)
def set_command(
    webhook_name: str, url: str | None, types: tuple[EventType, ...], all_types: bool, is_enabled: bool | None
) -> None:
    """Change the given fields of a webhook."""
    if all_types and types:
        raise WrongCall("--type and --all-types exclude each other")
    if url is None and not types and not all_types and is_enabled is None:
        raise WrongCall("--url, --type, --all-types, --enable or --disable must be given")
    chosen = () if all_types else types or None
    changed = _with_webhooks(
        lambda webhooks: webhooks.change(webhook_name, url=url, types=chosen, is_enabled=is_enabled, by=OPERATOR)
    )
    holes = {"name": webhook_name, "state": state_of(changed), "url": changed.url, "types": _types_of(changed)}
    click.echo(say("{name} is {state}, {url}, types: {types}", **holes))


@webhooks.command()
@_name_argument
def remove_command(webhook_name: str) -> None:
    """Remove a webhook; events that wait for it are dropped."""
    _with_webhooks(lambda webhooks: webhooks.remove(webhook_name, by=OPERATOR))
    click.echo(say("removed {name}", name=webhook_name))


@webhooks.command()
@_name_argument
@json_option
def test_command(webhook_name: str, as_json: bool) -> None:
    """Send one test message now and print the result. Exit status 1 unless the receiver has accepted it."""
    from wxauth.server.events.webhook_routes import trial_answer

    answer = _with_webhooks(lambda webhooks: webhooks.send_test(webhook_name, by=OPERATOR))
    if as_json or answer.status is not None:
        text = say("{status} in {ms} ms", status=answer.status, ms=answer.milliseconds)
        show(trial_answer(answer), text, as_json=as_json)
    if not answer.is_accepted:
        reason = answer.error or Text("{name} has answered {status}", name=webhook_name, status=answer.status)
        raise Failed("{reason}: not accepted", reason=reason)


@webhooks.command()
@_name_argument
@json_option
def secret_command(webhook_name: str, as_json: bool) -> None:
    """Renew a webhook's secret, and print it, this once. For 24 hours the former one signs too."""
    _show_secret(_with_webhooks(lambda webhooks: webhooks.renew_secret(webhook_name, by=OPERATOR)), as_json=as_json)


@webhooks.command()
@_name_argument
@click.option("--state", type=click.Choice(("pending", "delivered", "failed")))
@page_options
@json_option
def deliveries_command(webhook_name: str, state: str | None, limit: int, cursor: UUID | None, as_json: bool) -> None:
    """Print the deliveries of a webhook, sent and pending, the newest first."""
    chosen = None if state is None else DeliveryState(state)
    page = _with_webhooks(lambda webhooks: webhooks.deliveries_of(webhook_name, chosen, before=cursor, limit=limit))
    columns = "event_id type state attempts answer next_at"
    rows = table(page.items, columns, answer=lambda delivery: delivery.status or delivery.error)
    show(items_of(page), rows, *more(page.next_cursor), as_json=as_json)


@webhooks.command()
@_name_argument
@click.option("--event", "event_id", type=click.UUID, help="This one event.")
@click.option("--since", callback=time_option, metavar="TIME", help="All events of that time and later.")
@json_option
def replay_command(webhook_name: str, event_id: UUID | None, since: datetime | None, as_json: bool) -> None:
    """Send an event again, or all events since a time, of the webhook's types only."""
    if (event_id is None) == (since is None):
        raise WrongCall("either --event or --since must be given")
    replayed = _with_webhooks(lambda webhooks: webhooks.replay(webhook_name, event_id=event_id, since=since))
    show({"replayed": replayed}, say("{n} to be sent again", n=replayed), as_json=as_json)


def _show_secret(new: NewWebhookAnswer, *, as_json: bool) -> None:
    rows = [("name", new.name), ("url", new.url), ("secret", new.secret)]
    show(new, [(word(name), value) for name, value in rows], SHOWN_ONCE, as_json=as_json)


def _types_of(webhook: Any) -> str:
    return ",".join(webhook.types) or say("all")


def _with_webhooks(use: Callable[[Webhooks], Awaitable[T]]) -> T:
    async def run(parts: Parts) -> T:
        parts[KeyRing] = key_ring_of(parts[Settings], parts[Database], parts[Clock])
        async with aclosing(ReceiverTransport(resolve=parts[NameResolver].resolve)) as transport:
            parts.make(BackchannelLogouts, transport=transport)
            parts.make(Deliveries, transport=transport)
            return await use(parts[Webhooks])

    return with_parts(run)
