"""The service as an ASGI app, for any server: `uvicorn --factory wxauth.asgi:create_app --no-proxy-headers`."""

import gc
import sys
from typing import TYPE_CHECKING

from uvicorn.config import STARTUP_FAILURE

from wxauth.core.logs import configure_logging, get_logger
from wxauth.core.settings import InvalidSettings, Settings, load_settings, unknown_names
from wxauth.core.terminal import localized

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def create_app() -> "ASGIApp":
    """The service with the settings of the environment. If they are wrong, it prints why and ends the process."""
    try:
        return _made(load_settings(Settings))
    except InvalidSettings as exc:
        sys.stderr.write(f"{localized(exc.text)}\n")
        sys.exit(STARTUP_FAILURE)  # uvicorn's supervisor would start another worker after any other status


def _made(settings: Settings) -> "ASGIApp":
    """Make the app. Raises: InvalidSettings, also where only a part that is built can tell."""
    # Later, because uvicorn's supervisor takes a process for hung that must first forget all of these.
    from wxauth.service import app, metrics
    from wxauth.service.build import build_services

    configure_logging(level=settings.log_level, log_format=settings.log_format)
    for line in unknown_names():
        get_logger().warning("unknown_setting", reason=line)
    metrics.share_counts()
    made = app.create_app(build_services(settings))
    gc.collect()
    gc.freeze()  # objects made so far live to the end, so the collector need not traverse them again
    gc.set_threshold(50_000, 20, 20)  # 200 logins under way hold 27,000 objects, and leave few cycles
    return made
