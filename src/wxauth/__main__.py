"""The entry point of the command `wxauth`. If a dependency is missing, the command names the package."""

import errno
import gc
import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

# Other modules are imported only after the signals are set, because these imports take a second on a busy machine.

_STDOUT: Final = 1
# The disk is full or broken, or the size of a file is limited.
_WRITE_FAILURES: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_INCOMPLETE_ENCODINGS: Final = ("ascii", "latin-1", "charmap", "gbk", "gb2312", "big5")  # Python's names


def main() -> None:
    """Run the command. If an exception ends it, print the reason without secrets, and exit with status 1."""
    if sys.argv[1:2] == ["serve"] and sys.platform != "win32":  # Windows has no SIGHUP
        _set_signals()
    # If this variable is already set, it belongs to another program, but prometheus_client would read the variable
    # during its import. The service sets the variable itself before it starts several workers. The name is written out,
    # because importing the constant that contains it, `service.server.COUNTS_VARIABLE`, takes too long.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    # Imported objects live until the process ends. With the default threshold, the garbage collector would check them
    # repeatedly, which takes an eighth of a command's start time.
    gc.set_threshold(50_000)
    try:
        from wxauth import cli

        cli.main(prog_name="wxauth")
    except ModuleNotFoundError as exc:
        from wxauth.i18n import lazy_gettext as _
        from wxauth.terminal import localized

        package = (exc.name or "wxauth").partition(".")[0]
        if package == "wxauth":  # installing wxauth again would not help, so Python prints the traceback
            raise
        sys.exit(localized(_("{package} isn't installed. Install wxauth again", package=package)))
    except Exception as exc:
        _exit_because_of(exc)


def _set_signals() -> None:
    # The handler ends the process itself. It can't raise an exception instead, because Python drops an exception that
    # a handler raises during a callback, for example the callback of a weak reference. Without a handler, the signals
    # would have no effect in the first process of a container.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    # Otherwise, SIGHUP would end the process. A thread of the service waits for the signal later.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Exit with status 0, as after a regular stop. Nothing needs cleaning up yet."""
    os._exit(0)


def _exit_because_of(exc: Exception) -> NoReturn:
    from wxauth.core.logs import lines_of
    from wxauth.i18n import lazy_gettext as _
    from wxauth.terminal import localized, os_reason

    # An error of a named file is not an error of the output. The commands report most errors of files themselves.
    if isinstance(exc, OSError) and exc.errno in _WRITE_FAILURES and exc.filename is None:
        # At exit, Python writes the rest of its buffer, which would fail again on the full disk.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        sys.exit(localized(_("can't write the output: {error}", error=os_reason(exc))))
    if isinstance(exc, UnicodeEncodeError) and exc.encoding in _INCOMPLETE_ENCODINGS:
        text = _("can't write the output in {encoding}. Set PYTHONIOENCODING=utf-8", encoding=exc.encoding)
        sys.exit(localized(text))
    # Python's own traceback would contain values from PostgreSQL's message.
    sys.exit("\n".join(lines_of(exc)))


if __name__ == "__main__":
    main()
