"""What `wxauth dev` keeps in `.wxauth/`: the developer's app secret, and a command for the running service."""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from wxauth.server.checks.result import CheckResult
from wxauth.server.wechat.errcodes import SECRET_NOT_TAKEN

NAMES: Final = frozenset({"WXAUTH_APP_ID", "WXAUTH_APP_SECRET", "WXAUTH_APPS"})
"""If one of these is set, `wxauth dev` uses the real WeChat, which does not know the simulated apps."""

_QUESTION: Final = "App secret of {app_id} (not shown) / 请输入 AppSecret（不显示）"
_KEPT: Final = "Kept in {path}, for you alone. 已保存，仅当前用户可读。"
_NOT_KEPT: Final = "The app secret is not kept; the next start asks again. 未保存 AppSecret，下次启动时会再次询问。"
_SCRIPT: Final = """\
#!/bin/sh
# Made by 'wxauth dev' at its start, removed at its end; it holds secrets.
if ! kill -0 {pid} 2>/dev/null; then
    rm -f -- "$0"
    echo "the 'wxauth dev' of this command has ended: start it again. wxauth dev 已退出，请重新启动。" >&2
    exit 1
fi
{settings}
exec {python} -m wxauth "$@"
"""


class OwnSecret:
    """The secret of `WXAUTH_APP_ID`, if the environment contains none.

    Args:
        home: The folder in which the secret is stored.
        given: The names of the variables that the environment contains.
    """

    def __init__(self, home: Path, given: frozenset[str]) -> None:
        app_id = os.environ.get("WXAUTH_APP_ID", "")
        is_wanted = given & NAMES == {"WXAUTH_APP_ID"} and re.fullmatch(r"[\w-]{1,64}", app_id, re.ASCII)
        self._path = home / f"app_secret_{app_id}" if is_wanted else None
        self.value: str | None = None
        """None if no secret is needed, or there is no terminal."""
        self._is_new = False
        if self._path is None:
            return
        if self._path.exists():
            self.value = self._path.read_text()
        elif sys.stdin.isatty():
            self.value = click.prompt(_QUESTION.format(app_id=app_id), hide_input=True, err=True).strip()
            self._is_new = True

    def keep_unless_refused(self, findings: Iterable[CheckResult]) -> None:
        """Store the secret for the next run, or delete it if WeChat has just refused it."""
        if self._path is None or self.value is None:
            return
        if any(SECRET_NOT_TAKEN.en in finding.message for finding in findings):
            self._path.unlink(missing_ok=True)
            click.echo(_NOT_KEPT, err=True)
        elif self._is_new:
            store_privately(self._path, self.value)
            click.echo(_KEPT.format(path=self._path), err=True)


def store_privately(path: Path, secret: str) -> None:
    """Write a new file that only its owner can read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)


@contextmanager
def command_for_this_dev(home: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Keep the command there, for its owner only, while the block runs.

    It uses `settings`, overridden by dev's own environment. Other settings in its caller's environment are ignored,
    because the command is for this service and its database. If dev is killed, the command stays, and removes itself
    when it is next run.
    """
    given = {name.upper(): value for name, value in os.environ.items() if name.isidentifier()}
    given = {name: value for name, value in given.items() if name.startswith("WXAUTH_")}
    variables = given | {f"WXAUTH_{name.upper()}": value for name, value in settings.items()}
    lines = "\n".join(_line(name, value) for name, value in variables.items())
    path = home / "wxauth"
    path.unlink(missing_ok=True)  # left by a killed run
    store_privately(path, _SCRIPT.format(pid=os.getpid(), settings=lines, python=shlex.quote(sys.executable)))
    path.chmod(0o700)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _line(name: str, value: Any) -> str:
    if value is None:
        return f"unset {name}"
    return f"export {name}={shlex.quote(value if isinstance(value, str) else json.dumps(value))}"
