"""The ports of `wxauth-desk dev`: those of the service, the simulated WeChat, the example sites and the MCP server."""

import socket
from collections.abc import Set
from contextlib import ExitStack, suppress
from typing import Final, NamedTuple

from wxauth.service.server import listen
from wxauth_desk.i18n import Text, lazy_gettext as _
from wxauth_desk.terminal import TextError, os_reason

_MAX_PORT: Final = 65535
# If the service's port ends with 0, as 8000 does, near ports differ from it only in the last digit.
_MAX_OFFSET: Final = 9


class Place(NamedTuple):
    """The socket on which a part listens, and the part's URL."""

    listener: socket.socket
    url: str


class Ports:
    """The ports of the service and of the other parts of `wxauth-desk dev`.

    The service's port and the chosen ports are opened before any part starts, so that `check` can report at once all of
    them that cannot be opened.

    Args:
        stack: The stack that closes the sockets.
        service: The port that the service will probably get, near which the other parts listen. The settings, which
            name the port, are loaded only after the ports of these parts have been opened.
        reserved: The ports that the caller has chosen for some parts, so that no other part takes them.
    """

    def __init__(self, stack: ExitStack, service: int, reserved: Set[int]) -> None:
        self._stack = stack
        self._service = service
        self._reserved = reserved | {service}
        self._problems: list[Text] = []

    def open_service(self, host: str, port: int) -> socket.socket:
        return self._stack.enter_context(self._listen(host, port, "--port"))

    def open(self, offset: int, chosen: int | None = None, *, option: str = "") -> Place:
        """Open the port of another part: the chosen one, or else the service's port plus `offset`.

        If that other port is in use or reserved, another free port is opened, near the service's if possible. If the
        chosen port is in use, `check` reports it, with the `option` of `dev` that chooses it.
        """
        listener = self._listen_near(offset) if chosen is None else self._listen("127.0.0.1", chosen, option)
        self._stack.enter_context(listener)
        return Place(listener, f"http://127.0.0.1:{listener.getsockname()[1]}")

    def check(self) -> None:
        """Check that all ports are open. Raises: TextError, if the service's port or a chosen port is not."""
        if self._problems:
            raise TextError(Text("\n").join(self._problems))

    def _listen_near(self, offset: int) -> socket.socket:
        # After the part's own port, the highest ports come first, because other parts without a chosen port prefer the
        # lowest ones.
        near = (self._service + offset, *range(self._service + _MAX_OFFSET, self._service, -1))
        for port in near:
            if port not in self._reserved and port <= _MAX_PORT:
                with suppress(OSError):
                    return listen("127.0.0.1", port)
        return listen("127.0.0.1", 0)

    def _listen(self, host: str, port: int, option: str) -> socket.socket:
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
            self._problems.append(text)
            return listen("127.0.0.1", 0)  # any free port, so that the remaining ports can be opened
