"""The command `wxauth` for the service that `wxauth-desk dev` runs."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from wxauth_desk.private_files import store_privately

# The script contains its message in both languages, because a shell script cannot read the catalogue.
_SCRIPT: Final = """\
#!/bin/sh
# Made by 'wxauth-desk dev' at its start, removed at its end; it holds secrets.
if ! kill -0 {pid} 2>/dev/null; then
    rm -f -- "$0"
    echo "the 'wxauth-desk dev' of this command has ended: start it again. wxauth-desk dev 已退出，请重新启动。" >&2
    exit 1
fi
{settings}
exec {python} -m wxauth "$@"
"""


@contextmanager
def command_for_this_dev(home: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """During the block, keep a command `wxauth` in the folder `home`, for the service that `wxauth-desk dev` runs.

    The command uses the settings in this process's environment, overridden by `settings`, of which None unsets a
    variable. These settings override those of the command's caller, because the command is for this service and its
    database. If this process is killed, the command's file remains, and removes itself when it is run the next time.
    """
    inherited = {
        name.upper(): value
        for name, value in os.environ.items()
        if name.upper().startswith("WXAUTH_") and name.isidentifier()  # a shell cannot set other names
    }
    variables = inherited | {f"WXAUTH_{name.upper()}": value for name, value in settings.items()}
    lines = "\n".join(_shell_line(name, value) for name, value in variables.items())
    path = home / "wxauth"
    path.unlink(missing_ok=True)  # a killed run might have left it
    store_privately(path, _SCRIPT.format(pid=os.getpid(), settings=lines, python=shlex.quote(sys.executable)))
    path.chmod(0o700)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _shell_line(name: str, value: Any) -> str:
    if value is None:
        return f"unset {name}"
    text = value if isinstance(value, str) else json.dumps(value)  # the settings read any other value as JSON
    return f"export {name}={shlex.quote(text)}"
