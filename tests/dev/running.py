"""`wxauth-desk dev` as a process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import WXAUTH_DESK, Running, free_port


@dataclass(frozen=True, slots=True)
class Dev:
    """A running `wxauth-desk dev`."""

    url: str
    wechat_url: str
    site_url: str


@contextmanager
def running_dev(
    folder: Path, *options: str, program: Sequence[str] = (WXAUTH_DESK, "dev"), **env: str
) -> Iterator[Dev]:
    port, wechat_port, site_port = free_port(), free_port(), free_port()
    ports = ("--port", str(port), "--wechat-port", str(wechat_port), "--site-port", str(site_port))
    command = (*program, *ports, *options)
    with Running(*command, cwd=folder, env=env) as running:
        running.wait_for("Ctrl-C ends it all")
        yield Dev(*(f"http://127.0.0.1:{each}" for each in (port, wechat_port, site_port)))
