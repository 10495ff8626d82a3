"""Each operation for administrators has a command and appears in the console."""

import re
from collections.abc import Iterator

import pytest

from tests.cli.tree import every_command
from tests.docs import ROOT, access

pytestmark = pytest.mark.no_database

VERBS = {"change": "set", "read": "show"}
"""The verbs of commands that differ from the verbs of operations."""
OTHERWISE = {
    "check_everything": "check",
    "check_one_app": "check",
    "list_deliveries": "webhooks deliveries",
    "read_app": "apps list",
    "read_webhook": "webhooks list",
    "remove_phone_of_user": "users set",
    "renew_client_secret": "clients secret",
    "renew_webhook_secret": "webhooks secret",
    "replay_deliveries": "webhooks replay",
}
"""The commands of operations that have another name."""
ONLY_IN_THE_CONSOLE = {
    *("list_app_titles", "list_events", "list_logins", "list_refusals", "read_names", "read_numbers"),
    *("read_phone_of_user", "end_session_of_user", "end_sessions_of_user"),
}
"""The operations without a command. The console shows what they return, or a ban has the same effect."""


def operations() -> Iterator[tuple[str, str]]:
    """Yield the path and the id of each operation for administrators."""
    return ((key.split()[1], name) for key, (name, _) in access().items() if "/v1/admin/" in key)


def test_each_operation_for_administrators_has_a_command() -> None:
    commands = {" ".join(names) for names, _ in every_command()}
    lacking = []
    for _, name in operations():
        verb, _, noun = name.partition("_")
        usual = f"{noun.removesuffix('s')}s {VERBS.get(verb, verb)}"
        if name not in ONLY_IN_THE_CONSOLE and OTHERWISE.get(name, usual) not in commands:
            lacking.append(f"{name}: add the command `wxauth {usual}` to src/wxauth/cli")
    assert not lacking, f"{'; '.join(lacking)}. If its command has another name, add it to OTHERWISE of this file"


def test_the_console_requests_each_operation_for_administrators() -> None:
    scripts = "".join(path.read_text("utf-8") for path in (ROOT / "src/wxauth/console/page").glob("*.js"))
    lacking = [
        f"{name}: add a request for {path} to src/wxauth/console/page"
        for path, name in operations()
        if not re.search(end_of(path), scripts)
    ]
    assert not lacking, "; ".join(lacking)


def end_of(path: str) -> str:
    """Return a pattern for the end of this path in the console's scripts."""
    *_, before, last = path.split("/")
    return rf"/{before}/\$\{{" if last.startswith("{") else rf"/{last}['`?]"
