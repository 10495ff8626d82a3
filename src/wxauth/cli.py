"""The commands. Each loads only what it needs, so that `--help` is quick."""

import os
import sys
from typing import TYPE_CHECKING, TypeVar

import click

from wxauth import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Any
    from uuid import UUID

    from wxauth.core.database import Database
    from wxauth.core.services import Services
    from wxauth.core.settings import AnySettings
    from wxauth.routes.schemas import UserDetailAnswer
    from wxauth.session_keys import KeyState

Answer = TypeVar("Answer")
Part = TypeVar("Part", "Database", "Services")


class _Failed(click.ClickException):
    """Ends the command with status 1 and the lines of its message."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Print to standard error, nothing around it."""
        del file
        click.echo(self.message, err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wxauth")
def main() -> None:
    """WeChat mini-program login as a service."""


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Where the service listens; 8000, or WXAUTH_PORT.")
@click.option("--wechat-port", type=click.IntRange(1, 65535), default=8001, show_default=True)
def dev(port: int | None, wechat_port: int) -> None:
    """Run the service on this machine, with nothing installed or configured.

    Brings its own PostgreSQL (kept under .wxauth/) and a simulated WeChat. WXAUTH_DATABASE_URL, where it is
    set, is used instead of that PostgreSQL.
    """
    if os.name != "posix":
        raise _Failed("wxauth dev needs Linux or macOS; on Windows run it in WSL. 在 Windows 上请使用 WSL。")
    from wxauth.dev.run import DevFailed, run

    try:
        run(port=port, wechat_port=wechat_port)
    except DevFailed as exc:
        raise _Failed(str(exc)) from None


@main.command()
def serve() -> None:
    """Run the service in production. Settings come from WXAUTH_* (see the README)."""
    from wxauth.core.settings import InvalidSettings, Settings
    from wxauth.server import serve

    settings = _settings(Settings)
    try:
        serve(settings)
    except InvalidSettings as exc:
        raise _Failed(str(exc)) from None


@main.command()
@click.option("--to", "revision", default="head", show_default=True, help="An older revision undoes the later ones.")
def migrate(revision: str) -> None:
    """Bring the database's schema to what this version needs. Safe to run from several replicas at once."""
    import asyncio

    from wxauth.core.database import Database, reason_of
    from wxauth.core.migrations import UnknownRevision
    from wxauth.core.migrations import migrate as migrate_database
    from wxauth.core.settings import DatabaseSettings
    from wxauth.errors import StorageUnavailable

    database = Database(_settings(DatabaseSettings).database_url.get_secret_value())
    try:
        reached = asyncio.run(migrate_database(database, revision=revision))
    except StorageUnavailable as exc:
        raise _Failed(f"WXAUTH_DATABASE_URL: {exc.detail}: {reason_of(exc)}") from None
    except UnknownRevision as exc:
        raise _Failed(str(exc)) from None
    click.echo(f"schema at {reached or 'base'}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def check(as_json: bool) -> None:
    """Say what is wrong and what to do: settings, database, keys, issuer, clocks, and each app at WeChat.

    Changes nothing, and may be run beside the service or before it starts. A line is ok, BAD, or a note where it
    depends on what is meant. Exit status 1: something does not work.
    """
    import asyncio
    import json

    from wxauth.checks import Level, check_all
    from wxauth.core.logs import configure_logging

    configure_logging(level="critical", log_format="console", stream=sys.stderr.buffer)  # the lines say it all
    results = asyncio.run(check_all())
    if as_json:
        rows = [{"name": it.name, "ok": it.ok, "level": it.level, "message": it.message} for it in results]
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        marks = {Level.OK: "ok", Level.NOTE: "note", Level.BAD: "BAD"}
        _print_table((marks[it.level], it.name, it.message) for it in results)
    sys.exit(0 if all(it.ok for it in results) else 1)


@main.group()
def secret() -> None:
    """The key that seals what is stored."""


@secret.command()
def new() -> None:
    """Print a new value for WXAUTH_SECRET_KEY."""
    import base64
    import secrets

    click.echo(base64.b64encode(secrets.token_bytes(32)).decode())


@secret.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def reseal(as_json: bool) -> None:
    """Seal all that is stored with WXAUTH_SECRET_KEY, after the former one moved to WXAUTH_SECRET_KEY_PREVIOUS.

    Safe beside running services, and to be stopped and begun again. Run it when every replica has the new key.
    """
    import dataclasses
    import json

    from wxauth.core.clock import utc_now
    from wxauth.core.sealing import Sealer
    from wxauth.core.settings import Settings
    from wxauth.resealing import reseal

    sealer = Sealer(_settings(Settings).secret_keys)
    done = _with_database(lambda database: reseal(database, sealer, now=utc_now()))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done)))
    else:
        click.echo(
            f"sealed anew: {done.signing_keys} signing keys, {done.session_keys} session keys, "
            f"{done.phone_answers} phone answers"
        )
    if done.not_opened:
        raise _Failed(
            f"WXAUTH_SECRET_KEY_PREVIOUS: {done.not_opened} stored values were sealed with a key that is not in it. "
            f"其中缺少加密了 {done.not_opened} 项已存内容的旧密钥。"
        )


@main.group()
def keys() -> None:
    """The keys that sign access tokens."""


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_keys(as_json: bool) -> None:
    """Print every published key: the next one to sign, the one that signs, the former ones."""
    import json

    from wxauth.core.clock import utc_now
    from wxauth.keys.keyring import state_of
    from wxauth.keys.rows import published_keys

    now = utc_now()
    stored = _with_database(lambda database: published_keys(database, now=now))
    rows = [
        {
            "kid": key.kid,
            "state": state_of(key, stored, now),
            "signs_from": key.activates_at.isoformat(timespec="seconds"),
            "published_until": key.retires_at and key.retires_at.isoformat(timespec="seconds"),
        }
        for key in stored
    ]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        header = ("KID", "STATE", "SIGNS_FROM", "PUBLISHED_UNTIL")
        _print_table([header, *(tuple(cell or "-" for cell in row.values()) for row in rows)])


@keys.command("rotate")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def rotate_keys(as_json: bool) -> None:
    """Publish a new key, which signs when every cache has had time to see it. Where one waits already, it is that."""
    import json
    from datetime import timedelta

    from wxauth.core.clock import utc_now
    from wxauth.core.sealing import CannotOpen, Sealer
    from wxauth.core.settings import Settings
    from wxauth.keys.keyring import KeyRing

    settings = _settings(Settings)
    sealer, max_age = Sealer(settings.secret_keys), timedelta(seconds=settings.signing_key_max_age)
    try:
        key = _with_database(lambda database: KeyRing(database, sealer, utc_now, max_age=max_age).rotate())
    except CannotOpen:
        raise _Failed(
            "WXAUTH_SECRET_KEY: wants the key that sealed what is stored. 与已存内容所用的密钥不符。"
        ) from None
    row = {"kid": key.kid, "signs_from": key.activates_at.isoformat(timespec="seconds")}
    click.echo(json.dumps(row) if as_json else "{kid} signs from {signs_from}".format(**row))


@main.group()
def clients() -> None:
    """The services that may ask whether a token is good."""


def _client_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    from wxauth.clients import ACTORS, is_name

    if value in ACTORS:
        raise click.BadParameter(f"{value} is a name that the audit trail has for another.")
    if not is_name(value):
        raise click.BadParameter("wants a-z, 0-9, _ and -, the first a letter or digit, at most 64.")
    return value


@clients.command("add")
@click.argument("name", callback=_client_name)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def add_client(name: str, as_json: bool) -> None:
    """Let a service in, by HTTP Basic as NAME and with a secret that is shown this once."""
    import json

    from wxauth.clients import NameTaken, add_client
    from wxauth.core.clock import utc_now

    try:
        credentials = _with_database(lambda database: add_client(database, name, now=utc_now()))
    except NameTaken:
        raise _Failed(f"there is a service client {name} already. 服务客户端 {name} 已存在。") from None
    if as_json:
        click.echo(json.dumps(credentials._asdict()))
        return
    _print_table(credentials._asdict().items())
    click.echo("Keep the secret, it is not shown again. 请妥善保存，密钥不会再次显示。", err=True)


@clients.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_clients(as_json: bool) -> None:
    """Print every service client, without its secret."""
    import json

    from wxauth.clients import list_clients

    rows = [(client.name, client.created_at.isoformat(timespec="seconds")) for client in _with_database(list_clients)]
    if as_json:
        click.echo(json.dumps([{"client_id": name, "created_at": created_at} for name, created_at in rows]))
    else:
        _print_table([("CLIENT_ID", "CREATED_AT"), *rows])


@clients.command("remove")
@click.argument("name", callback=_client_name)
def remove_client(name: str) -> None:
    """Refuse a service client from now on."""
    from wxauth.clients import NoSuchClient, remove_client
    from wxauth.core.clock import utc_now

    try:
        _with_database(lambda database: remove_client(database, name, now=utc_now()))
    except NoSuchClient:
        raise _Failed(f"there is no service client {name}. 没有服务客户端 {name}。") from None
    click.echo(f"removed {name}")


@main.group()
def users() -> None:
    """The people who log in: find, ban, erase, and give roles. The first administrator is made here."""


def _cursor(_context: click.Context, _parameter: click.Parameter, value: str | None) -> "UUID | None":
    from wxauth.admin import id_in_cursor

    try:
        return None if value is None else id_in_cursor(value)
    except ValueError:
        raise click.BadParameter("wants what the page before named.") from None


def _role(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    import re

    from wxauth.core.tables import ROLE

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
@click.option("--q", callback=_text, help="Part of the nickname, or the whole openid, unionid, phone number or id.")
@click.option("--status", type=click.Choice(["active", "disabled"]))
@click.option("--role", callback=_role)
@click.option("--app-id", callback=_text, help="Who has an identity in this app.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@click.option("--cursor", callback=_cursor, help="The next page, as the one before named it.")
@click.option("--json", "as_json", is_flag=True, help="For programs, as GET /v1/admin/users answers.")
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

    from wxauth.admin import list_users
    from wxauth.core.tables import UserStatus
    from wxauth.routes.schemas import users_answer
    from wxauth.store.users import UserSearch

    search = UserSearch(text=q or None, status=UserStatus(status) if status else None, role=role, app_id=app_id or None)
    page = _with_database(lambda database: list_users(database, search, before=cursor, limit=limit))
    if as_json:
        click.echo(to_json(users_answer(page)))
        return
    rows = [
        (str(user["id"]), user["status"], _roles(user), _minute(user["last_login_at"]), _printable(user["nickname"]))
        for user in page.items
    ]
    _print_table([("ID", "STATUS", "ROLES", "LAST_LOGIN_AT", "NICKNAME"), *rows])
    if page.next_cursor:
        click.echo(f"There are more: --cursor {page.next_cursor} 还有更多。", err=True)


@users.command("show")
@_user_argument
@click.option("--check", is_flag=True, help="Ask WeChat whether it still takes each session key; wants all settings.")
@click.option("--json", "as_json", is_flag=True, help="For programs, as GET /v1/admin/users/{id} answers.")
def show_user(user_id: "UUID", check: bool, as_json: bool) -> None:
    """Print a user with all identities and open sessions.

    With --check, JSON has `session_keys` too, as POST /v1/admin/users/{id}/session-keys/check answers.
    """
    from pydantic_core import to_json

    from wxauth.routes.schemas import session_keys_answer, user_detail_answer
    from wxauth.session_keys import check_keys

    user = user_detail_answer(_read_user(user_id))
    states = _with_services(lambda services: check_keys(services, user_id)) if check else ()
    if as_json:
        keys = {"session_keys": session_keys_answer(states)["items"]} if check else {}
        click.echo(to_json({**user, **keys}))
    else:
        _print_user(user, states)
    not_told = sum(state.error not in (None, "session_key_expired") for state in states)
    if not_told:
        raise _Failed(f"{not_told} session keys could not be checked. 有 {not_told} 个 session_key 未能检查。")


def _print_user(user: "UserDetailAnswer", states: "Sequence[KeyState]") -> None:
    _print_table(
        [
            ("id", str(user["id"])),
            ("status", user["status"]),
            ("roles", _roles(user)),
            ("nickname", _printable(user["nickname"])),
            ("avatar_url", _printable(user["avatar_url"])),
            ("phone", _printable(user["phone"])),
            ("unionid", _printable(user["unionid"])),
            ("created_at", _minute(user["created_at"])),
            ("last_login_at", _minute(user["last_login_at"])),
            *(("identity", f"{identity['app_id']}  {identity['openid']}") for identity in user["identities"]),
            *(
                (
                    "session",
                    f"{session['id']}  {session['app_id']}  used {_minute(session['last_used_at'])}"
                    f"  {session['ip'] or '-'}  {_printable(session['device'])}",
                )
                for session in user["sessions"]
            ),
            *(("session_key", f"{state.app_id}  {state.openid}  {_validity(state)}") for state in states),
        ]
    )


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


@users.command("erase")
@_user_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase_user(user_id: "UUID", yes: bool) -> None:
    """Erase a person everywhere. Who logs in again is a new user: to keep somebody out, ban them."""
    from wxauth.admin import Actor, erase_user
    from wxauth.core.clock import utc_now
    from wxauth.core.trail import OPERATOR

    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("without a terminal it wants --yes. 非终端环境须加 --yes。")
        name = _printable(_read_user(user_id)["nickname"])
        click.confirm(f"Erase {user_id} ({name}) for good? 确定彻底删除？", abort=True, err=True)
    _with_user(user_id, lambda database: erase_user(database, user_id, by=Actor(OPERATOR), now=utc_now()))
    click.echo(f"erased {user_id}")


@main.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    import json

    from wxauth.app import create_api

    click.echo(json.dumps(create_api().openapi(), ensure_ascii=False, indent=2))


def _with_database(ask: "Callable[[Database], Awaitable[Answer]]") -> "Answer":
    from wxauth.core.database import Database
    from wxauth.core.logs import configure_logging
    from wxauth.core.settings import DatabaseSettings

    settings = _settings(DatabaseSettings)
    configure_logging(level="critical", log_format="console", stream=sys.stderr.buffer)  # the failure says it all
    return _asked(lambda: Database(settings.database_url.get_secret_value()), ask)


def _with_services(ask: "Callable[[Services], Awaitable[Answer]]") -> "Answer":
    from wxauth.core.logs import configure_logging
    from wxauth.core.settings import Settings
    from wxauth.service.build import build_services

    settings = _settings(Settings)
    configure_logging(level="error", log_format="console", stream=sys.stderr.buffer)  # what to change at WeChat
    return _asked(lambda: build_services(settings), ask)


def _asked(make: "Callable[[], Part]", ask: "Callable[[Part], Awaitable[Answer]]") -> "Answer":
    import asyncio
    from contextlib import aclosing

    from wxauth.core.database import reason_of
    from wxauth.errors import StorageUnavailable

    async def answer() -> "Answer":
        async with aclosing(make()) as part:
            return await ask(part)

    try:
        return asyncio.run(answer())
    except StorageUnavailable as exc:
        raise _Failed(f"WXAUTH_DATABASE_URL: {exc.detail}: {reason_of(exc)}") from None


def _with_user(user_id: "UUID", ask: "Callable[[Database], Awaitable[Answer]]") -> "Answer":
    from wxauth.admin import MAX_ROLES, TooManyRoles
    from wxauth.errors import LastAdmin, NotFound

    try:
        return _with_database(ask)
    except NotFound:
        raise _Failed(f"there is no user {user_id}. 没有用户 {user_id}。") from None
    except LastAdmin:
        raise _Failed("this is the only administrator: make another one first. 请先指定另一位管理员。") from None
    except TooManyRoles:
        raise _Failed(f"a user has at most {MAX_ROLES} roles. 每个用户最多 {MAX_ROLES} 个角色。") from None


def _read_user(user_id: "UUID") -> "Mapping[str, Any]":
    from wxauth.admin import read_user
    from wxauth.core.clock import utc_now

    return _with_user(user_id, lambda database: read_user(database, user_id, now=utc_now()))


def _change_user(
    user_id: "UUID", *, status: str | None = None, granted: str | None = None, revoked: str | None = None
) -> None:
    from wxauth.admin import Actor, UserChange, change_user
    from wxauth.core.clock import utc_now
    from wxauth.core.tables import UserStatus
    from wxauth.core.trail import OPERATOR

    change = UserChange(status=UserStatus(status) if status else None, granted=granted, revoked=revoked)
    _with_user(user_id, lambda database: change_user(database, user_id, change, by=Actor(OPERATOR), now=utc_now()))
    user = _read_user(user_id)
    click.echo(f"{user_id} is {user['status']}, roles: {_roles(user)}")


def _roles(user: "Mapping[str, Any]") -> str:
    return ",".join(user["roles"]) or "-"


def _minute(time: "datetime") -> str:
    return time.isoformat(timespec="minutes")


def _printable(text: str | None) -> str:
    """What people gave themselves, without what would move the cursor of a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text or "-")


def _print_table(rows: "Iterable[tuple[str, ...]]") -> None:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _settings(kind: "type[AnySettings]") -> "AnySettings":
    from wxauth.core.settings import InvalidSettings, load_settings

    try:
        return load_settings(kind)
    except InvalidSettings as exc:
        raise _Failed(str(exc)) from None


if __name__ == "__main__":
    main()
