"""The service as an ASGI app for any server, for example `uvicorn --factory wxauth.asgi:create_app --no-proxy-headers`.

Without the second option, uvicorn would replace the client's address before wxauth checks `TRUSTED_PROXIES`.
"""

import ctypes
import gc
import sys
from typing import TYPE_CHECKING, Final

from wxauth.service.starting import ending_at_once

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from wxauth.settings.settings import Settings

_PR_SET_THP_DISABLE: Final = 41  # prctl(2)


def create_app() -> "ASGIApp":
    """Create the service with the settings from the environment. If they are wrong, end the process."""
    with ending_at_once():
        _refuse_huge_pages()
        from uvicorn.config import STARTUP_FAILURE

        from wxauth.settings.loading import load_settings
        from wxauth.settings.settings import InvalidSettings, Settings
        from wxauth.terminal import localized

        try:
            return _create_with(load_settings(Settings))
        except InvalidSettings as exc:
            sys.stderr.write(f"{localized(exc.text)}\n")
            # After any other exit status, uvicorn's supervisor would start another worker.
            sys.exit(STARTUP_FAILURE)


def _refuse_huge_pages() -> None:
    # Python 3.15 asks for huge pages. Linux then combines pages about every ten seconds, and all requests would wait
    # for up to 0.1 s. Without huge pages, a login takes about 5 % more CPU time.
    if sys.platform == "linux":  # a sandbox may refuse the call
        ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, *map(ctypes.c_ulong, (1, 0, 0, 0)))


def _create_with(settings: "Settings") -> "ASGIApp":
    # These modules are imported only now, so that a worker that refuses its settings ends quickly. With these modules
    # loaded, a worker's exit takes up to 8 s on a busy machine. uvicorn's supervisor would treat the worker as hung,
    # kill it, and start another one.
    from wxauth.core.logs import configure_logging, get_logger
    from wxauth.service import app
    from wxauth.service.build import build_services
    from wxauth.service.shared_counts import share_counts
    from wxauth.settings.loading import setting_faults

    configure_logging(level=settings.log_level, log_format=settings.log_format)
    share_counts()
    for line in setting_faults():
        get_logger().warning("unknown_setting", reason=line)
    created = app.create_app(build_services(settings))
    gc.collect()
    # The objects that exist now live until the process ends, so the garbage collector need not check them again.
    gc.freeze()
    # 200 logins in progress hold 27,000 objects, and few of these are in cycles. Therefore, garbage collections during
    # the logins would free little. For the same reason, older objects are checked half as often as by default (10).
    gc.set_threshold(50_000, 20, 20)
    return created
