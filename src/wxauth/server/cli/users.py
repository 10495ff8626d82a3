"""`wxauth users`: find, ban, erase, and give roles."""

import sys
from typing import TYPE_CHECKING

import click

from wxauth.server.cli.asking import Failed, minute, print_table, printable, with_database, with_services

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime
    from typing import TypeVar
    from uuid import UUID

    from wxauth.server.core.database import Database
    from wxauth.server.session_keys.session_keys import KeyState
    from wxauth.server.users.admin import UserDetail
    from wxauth.server.users.bodies import UserDetailAnswer

    Answer = TypeVar("Answer")


@click.group()
def users() -> None:
    """The people who log in: find, ban, erase, and give roles. The first administrator is made here."""


def _cursor(_context: click.Context, _parameter: click.Parameter, value: str | None) -> "UUID | None":
    from wxauth.server.web.paging import id_in_cursor

    try:
        return None if value is None else id_in_cursor(value)
    except ValueError:
        raise click.BadParameter("wants what the page before named.") from None


def _role(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    import re

    from wxauth.server.core.tables import ROLE

    if value is not None and not re.fullmatch(ROLE, value):
        raise click.BadParameter("wants a-z, 0-9, _ and -, the first a letter, at most 32.")
    return value


def _text(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("wants UTF-8.") from None
    return value and value.strip()


_user_argument = click.argument("user_id", type=click.UUID)
_role_argument = click.argument("role", callback=_role)


@users.command("list")
@click.option(
    "--q",
    callback=_text,
    help="A whole openid, unionid, external id, phone number or id. If it is nobody's: a part of the nickname.",
)
@click.option("--status", type=click.Choice(["active", "disabled"]))
@click.option("--role", callback=_role)
@click.option("--app-id", callback=_text, help="Only users who have an identity in this app.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@click.option("--cursor", callback=_cursor, help="Go on behind a page: its next_cursor.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON as GET /v1/admin/users answers.")
def list_users(
    q: str | None,
    status: str | None,
    role: str | None,
    app_id: str | None,
    limit: int,
    cursor: "UUID | None",
    as_json: bool,
) -> None:
    """Print users, the newest first."""
    from pydantic_core import to_json

    from wxauth.server.core.tables import UserStatus
    from wxauth.server.users.admin import list_users
    from wxauth.server.users.bodies import users_answer
    from wxauth.server.users.rows import UserSearch

    search = UserSearch(text=q or None, status=UserStatus(status) if status else None, role=role, app_id=app_id or None)
    page = with_database(lambda database, _: list_users(database, search, before=cursor, limit=limit))
    if as_json:
        click.echo(to_json(users_answer(page)))
        return
    rows = [
        (
            str(user["id"]),
            user["status"],
            _names(user["roles"]),
            _minute(user["last_login_at"]),
            printable(user["nickname"]),
        )
        for user in page.items
    ]
    print_table([("ID", "STATUS", "ROLES", "LAST_LOGIN_AT", "NICKNAME"), *rows])
    if page.next_cursor:
        click.echo(f"There are more: --cursor {page.next_cursor} 还有更多。", err=True)


@users.command("show")
@_user_argument
@click.option("--check", is_flag=True, help="Ask WeChat whether it still takes each session key; wants all settings.")
@click.option("--export", is_flag=True, help="All that is stored of the person, as GET /v1/me/export answers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON as GET /v1/admin/users/{id} answers.")
def show_user(user_id: "UUID", check: bool, export: bool, as_json: bool) -> None:
    """Print a user with all identities and open sessions.

    With --check, JSON has `session_keys` too, as POST /v1/admin/users/{id}/session-keys/check answers.
    """
    from pydantic_core import to_json

    from wxauth.server.login.bodies import session_keys_answer
    from wxauth.server.session_keys.session_keys import check_keys
    from wxauth.server.users.bodies import user_detail_answer

    if export:
        _export(user_id)
        return
    user = user_detail_answer(_read_user(user_id))
    states = with_services(lambda services: check_keys(services, user_id)) if check else ()
    if as_json:
        keys = {"session_keys": session_keys_answer(states)["items"]} if check else {}
        click.echo(to_json({**user, **keys}))
    else:
        _print_user(user, states)
    not_told = sum(state.error not in (None, "session_key_expired") for state in states)
    if not_told:
        raise Failed(f"{not_told} session keys could not be checked. 有 {not_told} 个 session_key 未能检查。")


def _export(user_id: "UUID") -> None:
    from contextlib import aclosing

    from wxauth.server.core.trail import OPERATOR
    from wxauth.server.own_data.own_data import export_person

    async def write(database: "Database", now: "datetime") -> None:
        export = await export_person(database, user_id, by=OPERATOR, now=now, whole_within=None)
        click.echo(export.first, nl=export.rest is None)
        if export.rest is not None:
            async with aclosing(export.rest) as rest:
                async for piece in rest:
                    click.echo(piece, nl=False)
            click.echo()

    _with_user(user_id, write)


def _print_user(user: "UserDetailAnswer", states: "Sequence[KeyState]") -> None:
    print_table(
        [
            ("id", str(user["id"])),
            *(("former_id", str(each)) for each in user.get("former_ids", ())),
            ("status", user["status"]),
            ("roles", _names(user["roles"])),
            ("nickname", printable(user["nickname"])),
            ("avatar_url", printable(user["avatar_url"])),
            ("phone", _phone(user)),
            ("unionid", printable(user["unionid"])),
            ("external_id", printable(user["external_id"])),
            *(("former_external_id", printable(each)) for each in user.get("former_external_ids", ())),
            ("created_at", minute(user["created_at"])),
            ("last_login_at", _minute(user["last_login_at"])),
            *(("identity", f"{identity['app_id']}  {identity['openid']}") for identity in user["identities"]),
            *(
                (
                    "session",
                    f"{session['id']}  {session['app_id']}  used {minute(session['last_used_at'])}"
                    f"  {session['ip'] or '-'}  {printable(session['device'])}",
                )
                for session in user["sessions"]
            ),
            *(
                (
                    "consent",
                    f"{consent['document']}:{consent['version']}  given {minute(consent['given_at'])}"
                    + ("" if consent["withdrawn_at"] is None else f"  withdrawn {minute(consent['withdrawn_at'])}"),
                )
                for consent in user["consents"]
            ),
            *(("session_key", f"{state.app_id}  {state.openid}  {_validity(state)}") for state in states),
        ]
    )


def _phone(user: "UserDetailAnswer") -> str:
    return printable(user["phone"]) + ("" if user["phone_verified"] in (None, True) else "  (unproved)")


def _minute(time: "datetime | None") -> str:
    return "-" if time is None else minute(time)


def _validity(state: "KeyState") -> str:
    if state.is_valid is not None:
        return "valid" if state.is_valid else "expired"
    return "not stored" if state.error == "session_key_expired" else f"unknown: {state.error}"


@users.command("ban")
@_user_argument
def ban_user(user_id: "UUID") -> None:
    """Refuse a user from now on, and end every session of theirs."""
    _change_user(user_id, status="disabled")


@users.command("unban")
@_user_argument
def unban_user(user_id: "UUID") -> None:
    """Let a banned user log in again."""
    _change_user(user_id, status="active")


@users.command("grant")
@_user_argument
@_role_argument
def grant_role(user_id: "UUID", role: str) -> None:
    """Give a user a role; `admin` makes an administrator."""
    _change_user(user_id, granted=role)


@users.command("revoke")
@_user_argument
@_role_argument
def revoke_role(user_id: "UUID", role: str) -> None:
    """Take a role from a user."""
    _change_user(user_id, revoked=role)


@users.command("merge")
@click.argument("from_id", metavar="FROM", type=click.UUID)
@click.argument("into_id", metavar="INTO", type=click.UUID)
@click.option("--yes", is_flag=True, help="Go on without asking.")
def merge_users(from_id: "UUID", into_id: "UUID", yes: bool) -> None:
    """Make one user of two. INTO remains, with id, names, number and external_id; it cannot be undone."""
    from wxauth.errors import LastAdmin, MergeRefused, NotFound
    from wxauth.server.core.trail import OPERATOR
    from wxauth.server.users.admin import merge_users

    if not yes and sys.stdin.isatty():
        names = [printable(_read_user(user_id)["nickname"]) for user_id in (from_id, into_id)]
        click.confirm(f"Merge {from_id} ({names[0]}) into {into_id} ({names[1]})? 确定合并？", abort=True, err=True)
    try:
        user = with_database(lambda database, now: merge_users(database, from_id, into=into_id, by=OPERATOR, now=now))
    except NotFound:
        raise Failed("one of these users is not there. 其中一个用户不存在。") from None
    except MergeRefused as exc:
        raise Failed(f"{exc.detail}. 无法合并。") from None
    except LastAdmin as exc:
        raise Failed(f"{exc.detail}. 请先解除封禁。") from None
    click.echo(f"{from_id} is {user['id']}, roles: {_names(user['roles'])}")


@users.command("erase")
@_user_argument
@click.option("--yes", is_flag=True, help="Go on without asking.")
def erase_user(user_id: "UUID", yes: bool) -> None:
    """Erase a person everywhere. Who logs in again is a new user: to keep somebody out, ban them."""
    from wxauth.server.core.trail import OPERATOR
    from wxauth.server.users.admin import erase_user

    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("without a terminal it wants --yes. 非终端环境须加 --yes。")
        name = printable(_read_user(user_id)["nickname"])
        click.confirm(f"Erase {user_id} ({name}) for good? 确定彻底删除？", abort=True, err=True)
    _with_user(user_id, lambda database, now: erase_user(database, user_id, by=OPERATOR, now=now))
    click.echo(f"erased {user_id}")


def _with_user(user_id: "UUID", ask: "Callable[[Database, datetime], Awaitable[Answer]]") -> "Answer":
    from wxauth.errors import LastAdmin, NotFound
    from wxauth.server.users.admin import TooManyRoles
    from wxauth.server.users.standing import MAX_ROLES

    try:
        return with_database(ask)
    except NotFound:
        raise Failed(f"there is no user {user_id}. 没有用户 {user_id}。") from None
    except LastAdmin:
        raise Failed("this is the only administrator: make another one first. 请先指定另一位管理员。") from None
    except TooManyRoles:
        raise Failed(f"a user has at most {MAX_ROLES} roles. 每个用户最多 {MAX_ROLES} 个角色。") from None


def _read_user(user_id: "UUID") -> "UserDetail":
    from wxauth.server.users.admin import read_user

    return _with_user(user_id, lambda database, now: read_user(database, user_id, now=now))


def _change_user(
    user_id: "UUID", *, status: str | None = None, granted: str | None = None, revoked: str | None = None
) -> None:
    from wxauth.server.core.tables import UserStatus
    from wxauth.server.core.trail import OPERATOR
    from wxauth.server.users.admin import UserChange, change_user

    change = UserChange(status=UserStatus(status) if status else None, granted=granted, revoked=revoked)
    _with_user(user_id, lambda database, now: change_user(database, user_id, change, by=OPERATOR, now=now))
    user = _read_user(user_id)
    click.echo(f"{user_id} is {user['status']}, roles: {_names(user['roles'])}")


def _names(roles: "Sequence[str]") -> str:
    return ",".join(roles) or "-"
