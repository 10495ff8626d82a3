"""The commands `wxauth users merge` and `wxauth users split`."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import click

from wxauth.cli.options import checked, stripped, text_option
from wxauth.cli.printing import Failed, confirm, echo, header, json_option, printable, prints_json, show, yes_option
from wxauth.cli.resources import with_database
from wxauth.cli.users import listed_roles, name_of, until_text, user_argument
from wxauth.core.database import Database
from wxauth.core.trail import OPERATOR
from wxauth.errors import NotFound
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.merging.merging import Merged, merge_by_operator
from wxauth.merging.splitting import split
from wxauth.terminal import word
from wxauth.users.admin import read_user
from wxauth.users.schemas import UserDetailAnswer
from wxauth.users.status_queries import Ban, StatusAndRoles


def _identity(value: str) -> tuple[str, str]:
    app_id, _colon, openid = stripped(value).partition(":")
    if not app_id or not openid:
        raise ValueError
    return app_id, openid


@click.command()
@click.argument("from_id", metavar="FROM", type=click.UUID)
@click.argument("into_id", metavar="INTO", type=click.UUID)
@yes_option
def merge_command(from_id: UUID, into_id: UUID) -> None:
    """Merge the user FROM into the user INTO, who keeps their ID, nickname, phone number and external_id."""

    def question() -> Text:
        return _(
            "Merge {from_id} ({from_name}) into {into_id} ({into_name})?",
            from_id=from_id,
            from_name=name_of(from_id),
            into_id=into_id,
            into_name=name_of(into_id),
        )

    async def merge(database: Database, now: datetime) -> tuple[Merged, UserDetailAnswer]:
        try:
            merged = await merge_by_operator(database, from_id, into=into_id, by=OPERATOR, now=now)
            return merged, await read_user(database, merged.remaining_user.id, now=now)
        except NotFound:
            raise Failed(_("one of these users doesn't exist")) from None

    confirm(question)
    merged, user = with_database(merge)
    roles = listed_roles(user["roles"])
    echo(_("{former} was merged into {user_id}, roles: {roles}", former=from_id, user_id=user["id"], roles=roles))
    # The line above contains the roles after the merge. These lines show both users as they were before the merge.
    for each in (merged.former_user, merged.remaining_user):
        _echo_status_and_roles(each.id, each.nickname, each.roles, StatusAndRoles.of(each).ban)


@click.command()
@user_argument
@click.option(
    "--identity",
    metavar="APP_ID:OPENID",
    required=True,
    callback=checked(_identity, _("must have the form APP_ID:OPENID")),
    help="The identity that is split off. The user's other identities with the same unionid are split off too.",
)
@click.option("--external-id", callback=text_option, help="The user's external_id that moves to the new user.")
@yes_option
@json_option
def split_command(user_id: UUID, identity: tuple[str, str], external_id: str | None) -> None:
    """Split an identity off from USER_ID into a separate user.

    The new user has a new ID, this identity, USER_ID's other identities with the same unionid, their unionid and, if
    you specify one, the external_id. All other data stays with USER_ID. However, the sessions of these identities end,
    and a phone number that only these identities have verified is removed. If USER_ID is banned, the new user is banned
    too. The JSON output is the same as the response of POST /v1/admin/users/{id}/split.
    """
    app_id, openid = identity

    async def split_and_read(database: Database, now: datetime) -> list[UserDetailAnswer]:
        ids = await split(
            database, user_id, app_id=app_id, openid=openid, external_id=external_id, by=OPERATOR, now=now
        )
        return [await read_user(database, each, now=now) for each in ids]

    name = printable(f"{app_id}:{openid}")
    confirm(lambda: _("Split {name} off from {user_id}?", name=name, user_id=user_id))
    user, new_user = with_database(split_and_read)
    users = {"user": user, "new_user": new_user}
    rows: list[tuple[object, ...]] = [header(" ", "id", "external_id", "identities")]
    for label, each in users.items():
        identities = " ".join(f"{item['app_id']}:{item['openid']}" for item in each["identities"])
        rows.append((word(label), each["id"], each["external_id"], identities))
    show(users, rows)
    if prints_json():
        return
    for each in (user, new_user):
        is_banned = each["status"] == "disabled"
        ban = Ban(each.get("reason"), each.get("until")) if is_banned else None
        _echo_status_and_roles(each["id"], each["nickname"], each["roles"], ban)


def _echo_status_and_roles(user_id: UUID, nickname: str | None, roles: Sequence[str], ban: Ban | None) -> None:
    if not (nickname or roles or ban):
        return
    name = printable(nickname)
    text = _("{user_id}: {name}, roles: {roles}", user_id=user_id, name=name, roles=listed_roles(roles))
    if ban is not None:
        # `until` begins with a space in English, because `until_text` continues a sentence.
        text += _(", banned{until}: {reason}", until=until_text(ban.until), reason=printable(ban.reason))
    echo(text)
