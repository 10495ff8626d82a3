"""The measured services, each of which is a real process with one worker and a database of its own."""

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import Kind
from benchmarks.peers import PEERS, command_of
from benchmarks.processes import ROOT, environment, free_port, running
from wxauth.service.server import uvicorn_options

KINDS_OF: dict[str, tuple[Kind, ...]] = {
    "wxauth": ("login", "guarded", "refresh"),
    "earlier": ("login", "guarded", "refresh"),
    "go_whole": ("login", "guarded"),
    "go_tables": ("login", "guarded"),
    "go": ("login", "guarded"),
    "express": ("login", "guarded"),
    "floor": ("login", "guarded"),
    "tutorial": ("login", "guarded"),
    "without_wechat": ("refresh",),
}
"""The kinds of requests that each service can serve."""
NAMES = tuple(KINDS_OF)

_WHOLE = ("go_whole", "go_tables")
_OURS = ("wxauth", "earlier")
_ON_OUR_TABLES = (*_OURS, "go_tables", "without_wechat")
_ROWS = ("users", "identities", "sessions")
"""The tables of a service that stores sessions."""
_APP = {"APP_ID": "wxbench00000000001", "APP_SECRET": secrets.token_hex(16)}
_SECRET_KEY = base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass
class Contender:
    """A running service, and the people who have logged in to it."""

    name: str
    pid: int
    port: int
    database_url: str
    people: int = 0
    codes: int = 0
    stride: int = 1
    """The distance between the numbers of people who log in one after the other."""
    row_counts: tuple[str, ...] = field(default=("users",))
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The environment of our own service."""

    def load_in(self, kind: Kind) -> Kind:
        """Return the request in each situation.

        A service that does not call WeChat gets logins instead of refreshes.
        """
        return kind if self.calls_wechat else "login"

    @property
    def calls_wechat(self) -> bool:
        return self.name != "without_wechat"

    @property
    def has_sessions(self) -> bool:
        return "sessions" in self.row_counts

    @property
    def share_of_requests(self) -> float:
        """The share of the requests that a service gets.

        The tutorial's are so expensive that a third gives equal precision.
        """
        return 1 / 3 if self.name == "tutorial" else 1.0


@contextmanager
def started(
    name: str,
    *,
    database_url: str,
    wechat_url: str,
    folder: Path,
    more: Mapping[str, str] | None = None,
    served_by: Sequence[str] = (),
    checkout: Path = ROOT,
) -> Iterator[Contender]:
    """Run one of `NAMES` while the block runs.

    `more` contains settings of wxauth, `served_by` is a command in place of `wxauth serve`, and `checkout` is the
    folder with the version of wxauth to run.
    """
    port = free_port()
    own_settings = {
        "DATABASE_URL": database_url,
        **_APP,
        "SECRET_KEY": _SECRET_KEY,
        "WECHAT_BASE_URL": wechat_url,
        "PORT": str(port),
        "LOG_FORMAT": "json",
        "LOGIN_RATE_LIMIT": "900000000/minute",  # counted as in production, but never reached
        **(more or {}),
    }
    env = environment(**{f"WXAUTH_{key}": value for key, value in own_settings.items()})
    python = sys.executable
    if checkout != ROOT:
        env["PYTHONPATH"], python = str(checkout), str(checkout / ".venv/bin/python")
    cli = ("-m", "wxauth")
    if name in _ON_OUR_TABLES:
        subprocess.run([python, *cli, "migrate"], env=env, cwd=folder, check=True, capture_output=True)
    if name in (*_OURS, "without_wechat"):
        ours = (*cli, "serve") if name in _OURS else ("-m", f"benchmarks.services.{name}")
        program, *arguments = served_by or (python, *ours)
        with running(name, *arguments, program=program, port=port, folder=folder, env=env) as pid:
            yield Contender(name, pid, port, database_url, row_counts=_ROWS, env=env)
        return
    options = {"host": "127.0.0.1", "port": port}
    if name == "floor":  # the tutorial runs with uvicorn's own settings
        options |= {**uvicorn_options(), "http": "httptools"}
    env = environment(
        **_APP,
        DATABASE_URL=database_url,
        WECHAT_BASE_URL=wechat_url,
        JWT_SECRET=_SECRET_KEY,
        PORT=str(port),
        NODE_ENV="production",
        WORK=name.partition("_")[2],
        UVICORN_OPTIONS=json.dumps(options),
    )
    program, *arguments = (
        command_of(name, folder) if name in PEERS else (sys.executable, "-m", f"benchmarks.services.{name}")
    )
    with running(name, *arguments, program=program, port=port, folder=folder, env=env) as pid:
        yield Contender(name, pid, port, database_url, row_counts=_ROWS if name in _WHOLE else ("users",))
