"""`.wxauth/wxauth`: the wxauth command line with the settings and the database of the running `wxauth dev`."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from wxauth.server.dev import own_app

_SCRIPT: Final = """\
#!/bin/sh
# Made by 'wxauth dev' at its start, removed at its end; it holds secrets.
if ! kill -0 {pid} 2>/dev/null; then
    rm -f -- "$0"
    echo "the 'wxauth dev' of this command has ended: start it again. wxauth dev 已退出，请重新启动。" >&2
    exit 1
fi
{settings}
exec {python} -m wxauth "$@"
"""


@contextmanager
def command_for_this_dev(home: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Keep the command there, for its owner only, while the block runs.

    It uses `settings`, overridden by dev's own environment. Other settings in its caller's environment are ignored,
    because the command is for this service and its database. If dev is killed, the command stays, and removes itself
    when it is next run.
    """
    given = {name.upper(): value for name, value in os.environ.items() if name.isidentifier()}
    given = {name: value for name, value in given.items() if name.startswith("WXAUTH_")}
    variables = given | {f"WXAUTH_{name.upper()}": value for name, value in settings.items()}
    lines = "\n".join(_line(name, value) for name, value in variables.items())
    path = home / "wxauth"
    path.unlink(missing_ok=True)  # left by a killed run
    own_app.store_privately(path, _SCRIPT.format(pid=os.getpid(), settings=lines, python=shlex.quote(sys.executable)))
    path.chmod(0o700)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _line(name: str, value: Any) -> str:
    if value is None:
        return f"unset {name}"
    return f"export {name}={shlex.quote(value if isinstance(value, str) else json.dumps(value))}"
