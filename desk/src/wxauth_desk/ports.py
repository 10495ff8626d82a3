"""The ports of `wxauth-desk dev`, each of which may be in use."""

import socket
from collections.abc import Set
from contextlib import ExitStack, suppress
from typing import NamedTuple

from wxauth.service.server import listen
from wxauth_desk.i18n import Text, lazy_gettext as _
from wxauth_desk.terminal import TextError, os_reason


class Place(NamedTuple):
    """The socket on which a part listens, and its URL."""

    listener: socket.socket
    url: str


class Ports:
    """The ports of the parts.

    All are opened before anything starts, so that all ports that are in use are reported at once.

    Args:
        stack: Closes the sockets.
        service: The port of the service, near which the other parts listen.
        given: The ports that the caller has chosen for some parts, so that no other part takes them.
    """

    def __init__(self, stack: ExitStack, service: int, given: Set[int | None]) -> None:
        self._stack = stack
        self._service = service
        self._given = given | {service}
        self._in_use: list[Text] = []

    def open_service(self, host: str, port: int) -> socket.socket:
        """Open the port of the service."""
        return self._stack.enter_context(self._listen(host, port, "--port"))

    def open(self, after: int, chosen: int | None = None, *, option: str = "") -> Place:
        """Open the port of another part.

        Without a chosen port, it is `after` above the service's port, or a free one near it. `option` is the option of
        `dev` that chooses the port.
        """
        if chosen is not None:
            listener = self._listen("127.0.0.1", chosen, option)
        else:
            near = (self._service + after, *range(self._service + 9, self._service, -1))
            opened = (_listen_or_none(port) for port in near if port not in self._given and port < 65536)
            listener = next((it for it in opened if it is not None), None) or listen("127.0.0.1", 0)
        self._stack.enter_context(listener)
        return Place(listener, f"http://127.0.0.1:{listener.getsockname()[1]}")

    def check(self) -> None:
        """Raise TextError if a chosen port is in use."""
        if self._in_use:
            raise TextError(Text("\n").join(self._in_use))

    def _listen(self, host: str, port: int, option: str) -> socket.socket:
        """Listen on a port. If it is in use, note that, and listen on any free port until `check` is called."""
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
            self._in_use.append(text)
            return listen("127.0.0.1", 0)


def _listen_or_none(port: int) -> socket.socket | None:
    with suppress(OSError):
        return listen("127.0.0.1", port)
    return None
