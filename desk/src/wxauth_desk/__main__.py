"""The command `wxauth-desk`. If a package is missing, the command prints the package's name."""

import gc
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from wxauth_desk.i18n import lazy_gettext as _


def main() -> None:
    if sys.argv[1:2] == ["dev"]:
        # `dev` imports the service, which takes a while, before it installs its own handlers. Until then, these
        # handlers end the process. They raise no exception, because Python drops an exception that is raised while a
        # callback runs, for example the callback of a weak reference. The signal's default action does not suffice,
        # because the kernel does not apply it to the first process of a container.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _exit)
    gc.set_threshold(50_000)  # with the default, collections during the imports took an eighth of a command's start
    try:
        from wxauth_desk import cli

        cli.main(prog_name="wxauth-desk")
    except ModuleNotFoundError as exc:
        package = (exc.name or "wxauth_desk").partition(".")[0]
        if package in ("wxauth_desk", "wxauth", "wxauth_guard"):
            raise  # a module of wxauth itself is missing. This is a defect, and there is no package to install.
        from wxauth_desk.terminal import localized

        sys.exit(localized(_("{package} isn't installed. Run scripts/dev in a clone of wxauth", package=package)))


def _exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Until `run.run` installs its own handlers, nothing needs to be cleaned up.
    os._exit(0)  # as whenever a signal ends `dev`


if __name__ == "__main__":
    main()
