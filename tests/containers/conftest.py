"""Fixtures that run the files of `deploy/`, such as an engine, the image and a simulated WeChat."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine import ROOT, Engine, running_engine
from tests.processes import until
from tests.programs import lacks, output_of

NETWORK = "tests"
SERVER = "postgresql://postgres:secret@database:5432"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def checkout(engine: Engine) -> Path:
    """Copy the files of a clone to a folder that the engine sees, and return the folder."""
    if not (ROOT / ".git").exists():
        lacks("needs a clone: the image is built from what git knows 需要 git 仓库")
    folder = engine.shared / "checkout"
    for name in output_of("git", "ls-files", "-z", cwd=ROOT).strip("\0").split("\0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="session")
def image(engine: Engine, checkout: Path) -> str:
    """Build the image with the command in the README, and return its name."""
    index = subprocess.run(
        ["python3", "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    )
    options = ["--build-arg", f"PIP_INDEX_URL={index.stdout.strip()}"] if index.returncode == 0 else []
    engine.docker("build", "-t", "wxauth", *options, ".", folder=checkout)
    return "wxauth"


@pytest.fixture(scope="module")
def network(engine: Engine) -> Iterator[str]:
    """Make a network with a PostgreSQL named `database`, and yield the network's name."""
    engine.docker("network", "create", NETWORK)
    password = "POSTGRES_PASSWORD=secret"
    engine.docker("run", "--detach", f"--network={NETWORK}", "--name=database", "--env", password, "postgres:18-trixie")
    ready = "pg_isready --host=127.0.0.1 >/dev/null && echo yes || echo no"
    until(lambda: engine.docker("exec", "database", "sh", "-c", ready) == "yes")
    yield NETWORK
    engine.docker("rm", "--force", "--volumes", "database")
    engine.docker("network", "rm", NETWORK)


@pytest.fixture(scope="module")
def authority(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run a simulated WeChat at `WECHAT`, and yield its authority's certificate in a folder that containers can use."""
    with engine.wechat(tmp_path_factory.mktemp("wechat")) as file:
        yield Path(shutil.copy(file, engine.shared / "authority.pem"))
