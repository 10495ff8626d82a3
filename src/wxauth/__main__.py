"""The command `wxauth`. If a package is missing, it says which."""

import errno
import gc
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from wxauth.i18n import lazy_gettext as _

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a write to a full or broken disk fails with."""
_OF_TERMINALS = ("ascii", "latin-1", "charmap", "gbk", "gb2312", "big5")
"""Python's names of encodings that lack some characters."""


def main() -> None:
    """Run the command."""
    if sys.argv[1:2] == ["serve"] and sys.platform != "win32":
        # By no exception, which Python drops where it calls back, as when a weak reference ends. Not by the default
        # action, which the first process of a container ignores.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
        if sys.argv[1] == "serve":  # a SIGHUP meanwhile would end the process; it is handled later
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # somebody else's: prometheus_client reads it as it is imported
    gc.set_threshold(50_000)  # imported objects stay: collecting them took an eighth of a command's start
    try:
        from wxauth import cli

        cli.main(prog_name="wxauth")
    except ModuleNotFoundError as exc:
        package = (exc.name or "wxauth").partition(".")[0]
        if package == "wxauth":
            raise
        from wxauth.core.terminal import localized

        sys.exit(localized(_("{package} is not installed: install wxauth again", package=package)))
    except Exception as exc:
        from wxauth.core.logs import lines_of
        from wxauth.core.terminal import localized, os_reason

        if isinstance(exc, OSError) and exc.errno in _FULL and exc.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is left in the buffer
            sys.exit(localized(_("the output cannot be written: {error}", error=os_reason(exc))))
        if isinstance(exc, UnicodeEncodeError) and exc.encoding in _OF_TERMINALS:
            text = _("the output cannot be written in {encoding}: set PYTHONIOENCODING=utf-8", encoding=exc.encoding)
            sys.exit(localized(text))
        sys.exit("\n".join(lines_of(exc)))  # Python's own traceback would contain values from PostgreSQL's message


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End at once: there is nothing to clean up yet. The service then has handlers of its own."""
    os._exit(0)


if __name__ == "__main__":
    main()
