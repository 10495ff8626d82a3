"""The command `wxauth webhooks`, which manages webhooks."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import click
import httpx
from pydantic import TypeAdapter

from wxauth.cli.options import checked, takes
from wxauth.cli.printing import (
    SHOWN_ONCE,
    Failed,
    WrongCall,
    echo,
    json_option,
    prints_json,
    show,
    show_items,
    state_of,
)
from wxauth.cli.resources import T, with_parts
from wxauth.core.services import Parts
from wxauth.core.trail import OPERATOR
from wxauth.events.models import WebhookAnswer
from wxauth.events.schemas import (
    DeliveriesQuery,
    NewWebhook,
    NewWebhookAnswer,
    ReplayRequest,
    WebhookChange,
    WebhookName,
    trial_answer,
)
from wxauth.events.webhooks import Webhooks
from wxauth.i18n import lazy_gettext as _
from wxauth.outbound.receivers import receiver_transport_for
from wxauth.outbound.urls import NameResolver
from wxauth.settings.settings import Settings
from wxauth.terminal import word

_check_name = checked(
    TypeAdapter(WebhookName).validate_python,
    _("must be up to 64 characters (a-z, 0-9, _ and -) and begin with a letter or digit"),
)
_name_argument = click.argument("webhook_name", metavar="NAME", callback=_check_name)
_TYPE_OPTION: Final = {"option": "--type", "multiple": True, "metavar": "TYPE"}
_MAX_SHOWN_LOCATION: Final = 300  # characters of the URL to which a receiver redirects


@click.group()
def webhooks() -> None:
    """Manage webhooks, which send events to other services. Messages are signed according to Standard Webhooks."""


@webhooks.command()
@json_option
def list_command() -> None:
    """List all webhooks, without their secrets."""
    answers = [webhook.shown for webhook in _with_webhooks(lambda manager: manager.all())]
    show_items(answers, "name state url types", state=state_of, types=_types_of)


@webhooks.command()
@_name_argument
@click.argument("url")
@takes(NewWebhook, name=None, url=None, types=_TYPE_OPTION)
@json_option
def add_command(webhook_name: str, url: str, fields: dict[str, Any]) -> None:
    """Add a webhook that sends events to URL, and print its secret. The secret is shown only once."""
    types = fields.get("types", ())
    _show_secret(
        _with_webhooks(lambda manager: manager.add(webhook_name, url=url, types=types, by=OPERATOR), seals=True)
    )


@webhooks.command()
@_name_argument
@takes(WebhookChange, types=_TYPE_OPTION, is_enabled={"option": "--enable/--disable"})
@click.option("--all-types", is_flag=True, help="Send events of all types.")
def set_command(webhook_name: str, all_types: bool, fields: dict[str, Any]) -> None:
    """Change the given fields of a webhook."""
    if all_types and "types" in fields:
        raise WrongCall(_("--type and --all-types can't be used together"))
    if all_types:
        fields["types"] = ()
    if not fields:
        raise WrongCall(_("specify --url, --type, --all-types, --enable or --disable"))
    changed = _with_webhooks(lambda manager: manager.change(webhook_name, **fields, by=OPERATOR))
    echo(
        _(
            "{name}: {state}, URL: {url}, event types: {types}",
            name=webhook_name,
            state=state_of(changed),
            url=changed.url,
            types=_types_of(changed),
        )
    )


@webhooks.command()
@_name_argument
def remove_command(webhook_name: str) -> None:
    """Remove a webhook. Events that haven't been sent to this webhook yet are discarded."""
    _with_webhooks(lambda manager: manager.remove(webhook_name, by=OPERATOR))
    echo(_("removed {name}", name=webhook_name))


@webhooks.command()
@_name_argument
@json_option
def test_command(webhook_name: str) -> None:
    """Send a test message now, and print the result.

    The exit status is 1 if the receiver doesn't accept the message.
    """
    outcome = _with_webhooks(lambda manager: manager.send_test(webhook_name, by=OPERATOR))
    # Without a response, the error below is the whole result, but a program also needs the JSON.
    if prints_json() or outcome.status is not None:
        show(trial_answer(outcome), _("{status} in {ms} ms", status=outcome.status, ms=outcome.milliseconds))
    if outcome.location:
        raise Failed(
            _(
                "{name} returned {status} to {location}. wxauth doesn't follow redirects. Specify the target URL "
                "instead.",
                name=webhook_name,
                status=outcome.status,
                location=outcome.location[:_MAX_SHOWN_LOCATION],
            )
        )
    if not outcome.is_accepted:
        reason = outcome.error or _("{name} returned {status}", name=webhook_name, status=outcome.status)
        raise Failed(_("{reason}: the receiver didn't accept the message", reason=reason))


@webhooks.command()
@_name_argument
@json_option
def secret_command(webhook_name: str) -> None:
    """Rotate a webhook's secret, and print the new secret.

    The secret is shown only once. For 24 hours, messages are also signed with the previous secret.
    """
    _show_secret(_with_webhooks(lambda manager: manager.renew_secret(webhook_name, by=OPERATOR), seals=True))


@webhooks.command()
@_name_argument
@takes(DeliveriesQuery)
@json_option
def deliveries_command(webhook_name: str, fields: dict[str, Any]) -> None:
    """List the deliveries of a webhook, both sent and pending, the newest first."""
    query = DeliveriesQuery.model_construct(**fields)  # the options have already checked the values
    page = _with_webhooks(lambda manager: manager.deliveries_of(webhook_name, query))
    columns = "event_id type state attempts answer next_at"
    show_items(page, columns, answer=lambda delivery: delivery.status or delivery.error)


@webhooks.command()
@_name_argument
@takes(ReplayRequest, event_id={"option": "--event"})
@json_option
def replay_command(webhook_name: str, fields: dict[str, Any]) -> None:
    """Send one event again, or all events since a given time. Only event types that the webhook receives are sent."""
    if len(fields) != 1:
        raise WrongCall(_("specify either --event or --since"))
    replayed = _with_webhooks(lambda manager: manager.replay(webhook_name, by=OPERATOR, **fields))
    show({"replayed": replayed}, _("events to be sent again: {n}", n=replayed))


def _show_secret(new: NewWebhookAnswer) -> None:
    rows = [("name", new.name), ("url", new.url), ("secret", new.secret)]
    show(new, [(word(name), value) for name, value in rows], SHOWN_ONCE)


def _types_of(webhook: WebhookAnswer) -> str:
    return ",".join(webhook.types) or _("all")


# With `seals`, the command stores a secret, which the service must be able to decrypt.
def _with_webhooks(use: Callable[[Webhooks], Awaitable[T]], *, seals: bool = False) -> T:
    async def run(parts: Parts) -> T:
        async with aclosing(receiver_transport_for(parts[Settings], parts[NameResolver])) as transport:
            parts[httpx.AsyncBaseTransport] = transport
            return await use(parts[Webhooks])

    return with_parts(run, seals=seals)
