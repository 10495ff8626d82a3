"""The command `wxauth-desk`. If a package is missing, it prints the package's name."""

import gc
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from wxauth_desk.i18n import lazy_gettext as _


def main() -> None:
    """Run the command."""
    if sys.argv[1:2] == ["dev"] and sys.platform != "win32":
        # The handler ends the process instead of raising an exception, because Python drops exceptions in callbacks,
        # for example when a weak reference ends. The signal's default action does not suffice, because the first
        # process of a container ignores it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
    gc.set_threshold(50_000)  # checks of imported objects took an eighth of a command's start
    try:
        from wxauth_desk import cli

        cli.main(prog_name="wxauth-desk")
    except ModuleNotFoundError as exc:
        package = (exc.name or "wxauth_desk").partition(".")[0]
        if package in ("wxauth_desk", "wxauth", "wxauth_guard"):
            raise
        from wxauth_desk.terminal import localized

        sys.exit(localized(_("{package} isn't installed. Run scripts/dev in a clone of wxauth", package=package)))


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End immediately, because there is nothing to clean up yet. Commands that run install their own handlers."""
    os._exit(0)


if __name__ == "__main__":
    main()
