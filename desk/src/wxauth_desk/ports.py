"""The ports of `wxauth-desk dev`, each of which may be in use."""

import socket
from collections.abc import Set
from contextlib import ExitStack, suppress

from wxauth.service.server import listen
from wxauth_desk.i18n import Text, lazy_gettext as _
from wxauth_desk.terminal import os_reason


def listen_beside(
    port: int,
    given: Set[int | None],
    stack: ExitStack,
    taken: list[Text],
    after: int,
    own: int | None,
    option: str,
) -> tuple[socket.socket, str]:
    """Return a socket at a part's own port, and its URL. By default, the port is `after` the service's, or near it.

    Ports that are given belong to other parts.
    """
    near = [number for number in (port + after, *range(port + 9, port, -1)) if number not in given and number < 65536]
    free = None if own else next((it for number in near if (it := _listen_or_none(number)) is not None), None)
    listener = stack.enter_context(free or listen_or_note("127.0.0.1", own or 0, option, taken))
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def _listen_or_none(port: int) -> socket.socket | None:
    with suppress(OSError):
        return listen("127.0.0.1", port)
    return None


def listen_or_note(host: str, port: int, option: str, taken: list[Text]) -> socket.socket:
    """Return a socket that listens on this port.

    If the port is in use, use any free port, and add a text to `taken`.
    """
    try:
        return listen(host, port)
    except OSError as exc:
        text = _(
            "can't listen on {address}: {reason} (is another 'wxauth-desk dev' running? Choose another port "
            "with {option})",
            address=f"{host}:{port}",
            reason=os_reason(exc),
            option=option,
        )
        taken.append(text)
        return listen("127.0.0.1", 0)
