"""The secret of the developer's own app: asked for on the terminal, and stored until WeChat refuses it."""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from wxauth.server.checks import CheckResult
from wxauth.server.wechat.errcodes import SECRET_NOT_TAKEN

NAMES: Final = frozenset({"WXAUTH_APP_ID", "WXAUTH_APP_SECRET", "WXAUTH_APPS"})
"""If one of these is set, `wxauth dev` uses the real WeChat, which does not know the simulated apps."""

_QUESTION: Final = "App secret of {app_id} (not shown) / 请输入 AppSecret（不显示）"
_KEPT: Final = "Kept in {path}, for you alone. 已保存，仅当前用户可读。"
_NOT_KEPT: Final = "The app secret is not kept; the next start asks again. 未保存 AppSecret，下次启动时会再次询问。"


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
