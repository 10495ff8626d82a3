"""The command `wxauth users`, which finds, changes, bans and erases users, and manages their roles.

Modules that only one command needs are imported when this command is called, because these imports take a long time.
"""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import click
from pydantic import TypeAdapter
from pydantic_core import to_json

from wxauth.cli import LazyGroup
from wxauth.cli.options import checked, date_option, stripped, takes, time_option
from wxauth.cli.printing import (
    WrongCall,
    confirm,
    echo,
    json_option,
    printable,
    show,
    show_items,
    to_the_minute,
    yes_option,
)
from wxauth.cli.resources import read_settings, with_database
from wxauth.core.database import Database
from wxauth.core.trail import OPERATOR
from wxauth.core.users import PROFILE_FIELDS, UserStatus
from wxauth.i18n import Text, WrongValue, lazy_gettext as _
from wxauth.i_json import parse_typed
from wxauth.sessions.devices import describe_device
from wxauth.sessions.list_queries import OpenSession
from wxauth.settings.roles import Role
from wxauth.settings.settings import PhoneSettings
from wxauth.terminal import localized, printable_json, word
from wxauth.users.admin import UserChange, change_user, end_all_sessions, erase_user, read_user
from wxauth.users.attributes import check_patch
from wxauth.users.consent_queries import ConsentRow
from wxauth.users.schemas import Reason, UserDetailAnswer, users_answer
from wxauth.users.search_queries import UsersQuery, find_users

# The modules are imported only when the commands are called. A test compares these texts with the commands' help.
_MODULES: Final = {
    "user_merging": {
        "merge": _(
            "Merge the user FROM into the user INTO, who keeps their ID, nickname, phone number and external_id."
        ),
        "split": _("Split an identity off from USER_ID into a separate user."),
    },
    "import_export": {
        "export": _("Export all users to FILE, with one identity per line, as JSON."),
        "import": _("Import users from FILE, with one identity per line, as JSON or CSV."),
    },
}
_check_role = checked(
    TypeAdapter(Role).validate_python, _("must be up to 32 characters (a-z, 0-9, _ and -) and begin with a letter")
)
_check_reason = checked(
    lambda text: TypeAdapter(Reason).validate_python(stripped(text)),
    _("must be up to 500 characters, without control characters"),
)


def _attributes_patch(values: Sequence[str]) -> dict[str, object]:
    patch: dict[str, object] = {}
    for attribute in values:
        name, equals, value = attribute.partition("=")
        if not equals:
            raise WrongValue(_("must have the form NAME=VALUE. NAME= removes the attribute"))
        patch[name] = parse_typed(value) if value else None  # null removes the attribute
    check_patch(patch)
    return patch


user_argument = click.argument("user_id", type=click.UUID)
_role_argument = click.argument("role", callback=_check_role)


@click.group(cls=LazyGroup, modules=_MODULES)
def users() -> None:
    """Manage users, their roles and bans. Use these commands to appoint the first administrator."""


@users.command()
@takes(UsersQuery, role={"callback": _check_role}, seen_before={"callback": date_option, "metavar": "DATE"})
@json_option
def list_command(fields: dict[str, Any]) -> None:
    """List users, the newest first. The JSON output is the same as the response of GET /v1/admin/users."""
    query = UsersQuery.model_construct(**fields)  # the options have already checked the values
    region = read_settings(PhoneSettings).phone_region
    page = with_database(lambda database, _now: find_users(database, query, region=region))
    columns = "id status roles last_seen_at nickname"
    show_items(page, columns, as_json=users_answer(page), nickname=lambda user: _shown_name(user.id, user.nickname))


@users.command()
@user_argument
@click.option(
    "--export", is_flag=True, help="Print all data stored about a user, in the same format as GET /v1/me/export."
)
@json_option
def show_command(user_id: UUID, export: bool) -> None:
    """Print a user with all identities and active sessions.

    The JSON output is the same as the response of GET /v1/admin/users/{id}.
    """
    if export:
        _export(user_id)
    else:
        user = _read_user(user_id)
        show(user, _rows_of(user))


def _export(user_id: UUID) -> None:
    async def write(database: Database, now: datetime) -> None:
        from wxauth.users.own_data import export_data

        export = await export_data(database, user_id, by=OPERATOR, now=now, max_seconds=None)
        click.echo(printable_json(export.first_piece), nl=False)
        if export.further_pieces is not None:  # the export is large
            async with aclosing(export.further_pieces) as pieces:
                async for piece in pieces:
                    click.echo(printable_json(piece), nl=False)
        click.echo()

    with_database(write)


def _rows_of(user: UserDetailAnswer) -> list[tuple[str, object]]:
    fields: Mapping[str, object] = user  # because a TypedDict has only literal keys, and `fields_named` has variables

    def fields_named(*names: str) -> list[tuple[str, object]]:
        return [(name, fields[name]) for name in names]

    only_if_set = [name for name in ("reason", "until", "erase_at") if fields.get(name) is not None]
    # `phone_verified` is null if there is no phone number.
    unverified = Text("  ({proof})", proof=_("unverified")) if user["phone_verified"] is False else ""
    rows = [
        *fields_named("id"),
        *(("former_id", each) for each in user.get("former_ids", ())),
        ("status", word(user["status"])),
        *fields_named(*only_if_set, "roles", *PROFILE_FIELDS),
        ("phone", (user["phone"] or "-") + unverified),
        *fields_named("unionid", "external_id"),
        *(("attribute", f"{name}={to_json(value).decode()}") for name, value in sorted(user["attributes"].items())),
        *(("former_external_id", each) for each in user.get("former_external_ids", ())),
        *fields_named("created_at", "last_login_at", "last_seen_at"),
        *(("identity", f"{identity['app_id']}  {identity['openid']}") for identity in user["identities"]),
    ]
    for session in user["sessions"]:
        device = describe_device(session.device) or "-"
        rows.append(("session", _line_of(session, device=device)))
    for ended_session in user["ended_sessions"]:
        is_ended_by_others = ended_session.ended_reason == "administrator"
        reason = _("ended by staff or a service") if is_ended_by_others else word(ended_session.ended_reason)
        ended = f"{localized(reason)} {to_the_minute(ended_session.ended_at)}"
        rows.append(("ended_session", _line_of(ended_session, ended=ended)))
    for consent in user["consents"]:
        version = f"{consent.document}:{consent.version}"
        rows.append(("consent", f"{version}  {_times_of(consent)}"))
    return [(word(name), value) for name, value in rows]


def _times_of(consent: ConsentRow) -> str:
    times = _("given {time}", time=to_the_minute(consent.given_at))
    if consent.withdrawn_at is not None:
        times += "  " + _("withdrawn {time}", time=to_the_minute(consent.withdrawn_at))
    return localized(times)


def _line_of(session: OpenSession, *, ended: str = "", device: str = "") -> str:
    used = _("used {time}", time=to_the_minute(session.last_used_at))
    opened = _("opened {time} from {ip}", time=to_the_minute(session.created_at), ip=session.opened["ip"] or "-")
    parts = (str(session.id), session.client_id or session.app_id, ended, used, str(session.ip or "-"), device, opened)
    return localized(Text("  ").join(filter(None, parts)))


@users.command()
@user_argument
@click.option("--reason", callback=_check_reason, help="The reason, which only staff can see. At most 500 characters.")
@click.option(
    "--until",
    callback=time_option,
    metavar="TIME",
    help="When the ban ends automatically, with a time zone, such as 2026-11-27T18:00:00+08:00. Without "
    "this option, the ban is permanent.",
)
def ban_command(user_id: UUID, reason: str | None, until: datetime | None) -> None:
    """Ban a user and end all their sessions.

    If the user is already banned, the new reason and end replace the previous ones.
    """
    _change_and_print(user_id, UserChange(status=UserStatus.DISABLED, reason=reason, until=until))


@users.command()
@user_argument
def unban_command(user_id: UUID) -> None:
    """Unban a user."""
    _change_and_print(user_id, UserChange(status=UserStatus.ACTIVE))


@users.command()
@user_argument
def sign_out_command(user_id: UUID) -> None:
    """Sign a user out on all devices.

    The user can log in again. A mini-program logs the user in automatically at the next request, unless it sets
    silent to false. To prevent a user from logging in, ban the user instead.
    """
    with_database(lambda database, now: end_all_sessions(database, user_id, by=OPERATOR, now=now))
    echo(_("signed out {user_id} on all devices", user_id=user_id))


@users.command()
@user_argument
@_role_argument
def grant_command(user_id: UUID, role: str) -> None:
    """Grant a user a role. The role `admin` makes the user an administrator."""
    _change_and_print(user_id, UserChange(granted_role=role))


@users.command()
@user_argument
@_role_argument
def revoke_command(user_id: UUID, role: str) -> None:
    """Revoke a user's role."""
    _change_and_print(user_id, UserChange(revoked_role=role))


@users.command()
@user_argument
@click.option(
    "--attribute",
    "attributes",
    metavar="NAME=VALUE",
    multiple=True,
    callback=checked(_attributes_patch),
    help="An attribute of the user. If VALUE is JSON, it is stored as JSON. Otherwise, it is stored as "
    "text, and so is a number that some programs would round or print differently. NAME= removes the attribute. "
    "Repeatable.",
)
@click.option(
    "--clear",
    "cleared_fields",
    type=click.Choice(PROFILE_FIELDS),
    multiple=True,
    help="A field of the profile to clear, for example because it is inappropriate. Repeatable.",
)
@click.option("--no-phone", is_flag=True, help="Remove the phone number.")
def set_command(user_id: UUID, attributes: dict[str, object], cleared_fields: Sequence[str], no_phone: bool) -> None:
    """Change a user's attributes, clear fields of the profile, or remove the phone number."""
    if not attributes and not cleared_fields and not no_phone:
        raise WrongCall(_("specify --attribute, --clear or --no-phone"))
    change = UserChange(attributes=attributes or None, cleared_fields=cleared_fields)
    _change_and_print(user_id, change, removes_phone=no_phone)


@users.command()
@user_argument
@yes_option
def erase_command(user_id: UUID) -> None:
    """Erase a user and all their data.

    If the user logs in again, they become a new user. To prevent a user from logging in, ban the user instead.
    """
    confirm(lambda: _("Permanently erase {user_id} ({name})?", user_id=user_id, name=name_of(user_id)))
    with_database(lambda database, now: erase_user(database, user_id, by=OPERATOR, now=now))
    echo(_("erased {user_id}", user_id=user_id))


def _change_and_print(user_id: UUID, change: UserChange, *, removes_phone: bool = False) -> None:
    async def change_and_read(database: Database, now: datetime) -> UserDetailAnswer:
        await change_user(database, user_id, change, by=OPERATOR, now=now)
        if removes_phone:
            from wxauth.phones.phones import remove_phone_of

            await remove_phone_of(database, user_id, by=OPERATOR, now=now)
        return await read_user(database, user_id, now=now)

    user = with_database(change_and_read)
    state = word(user["status"]) + until_text(user.get("until"))
    erasure = "" if user["erase_at"] is None else f", {word('erase_at')}: {to_the_minute(user['erase_at'])}"
    roles = listed_roles(user["roles"])
    echo(_("{user_id} is {state}, roles: {roles}", user_id=user["id"], state=state, roles=roles) + erasure)


def _read_user(user_id: UUID) -> UserDetailAnswer:
    return with_database(lambda database, now: read_user(database, user_id, now=now))


def name_of(user_id: UUID) -> str:
    """Read a user from the database, and return the name to show in the confirmation prompt."""
    user = _read_user(user_id)
    return printable(localized(_shown_name(user["id"], user["nickname"])))


def _shown_name(user_id: UUID, nickname: str | None) -> str:
    return nickname or _("WeChat user …{end}", end=str(user_id)[-8:])  # as in the console


def listed_roles(roles: Sequence[str]) -> str:
    """Return the roles, separated by commas, for a message; `-` if there are none."""
    return ",".join(roles) or "-"


def until_text(until: datetime | None) -> str:
    """Return the end of a ban as a text that continues a sentence; empty if there is no ban, or if it does not end."""
    return _(" until {time}", time=to_the_minute(until)) if until else ""
