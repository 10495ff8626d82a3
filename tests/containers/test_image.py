"""The image can be built with the command in the README, and run as the guides say."""

import json
import os
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import wxauth
from tests.containers.conftest import SERVER
from tests.containers.engine import IMAGES, ROOT, WECHAT, Engine
from tests.deploy.conftest import people_at_work
from tests.docs import block
from tests.fakes import SECRET_KEY
from tests.processes import until
from tests.repository.project import pins
from tests.world import bearer
from wxauth_desk.wechat import APPS

pytestmark = pytest.mark.container

CONFINED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=1234567:0")
"""Options of `docker run` with more restrictions than any guide asks for."""
MEMORY = {1: "256m", 2: "512m"}
"""The memory that is enough for this number of workers and one command at the same time."""
PAGE = "docs/run/operations.md"
UPGRADING = "docs/run/upgrading.md"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(engine: Engine, image: str, network: str, authority: Path) -> Run:
    """Return a function that runs `wxauth` in a container: `run("migrate", "--rm")`.

    The settings are those of `.env.example` with values filled in.
    """
    given = {
        "DATABASE_URL": f"{SERVER}/postgres",
        "SECRET_KEY": SECRET_KEY,
        "APP_ID": APPS[0]["app_id"],
        "APP_SECRET": APPS[0]["app_secret"],
    }
    text = (ROOT / ".env.example").read_text()
    for name, value in given.items():
        text, found = re.subn(rf"^WXAUTH_{name}=.*$", f"WXAUTH_{name}={value}", text, flags=re.MULTILINE)
        assert found == 1, name
    own = [f"WXAUTH_WECHAT_BASE_URL={WECHAT}", "WXAUTH_LOGIN_RATE_LIMIT=100000/minute", "SSL_CERT_FILE=/authority.pem"]
    (engine.shared / ".env").write_text("\n".join([text, *own]))

    def run(command: str, *options: str) -> str:
        mounted = f"--volume={authority}:/authority.pem:ro"
        settings = (f"--network={network}", "--env-file=.env", mounted)
        return engine.docker("run", *settings, *options, image, *command.split(), folder=engine.shared)

    return run


@pytest.fixture(scope="module")
def migrated(run: Run) -> str:
    return run("migrate", "--rm", *CONFINED)


@pytest.fixture
def serve(engine: Engine, run: Run, migrated: str) -> Iterator[Run]:
    def serve(*options: str) -> str:
        run("serve", "--detach", "--name=serving", "--publish=8000:8000", "--stop-timeout=30", *options)
        until(lambda: engine.inspect("serving", "{{.State.Health.Status}}") == "healthy")
        return "serving"

    yield serve
    engine.docker("rm", "--force", "serving")


def test_it_migrates(migrated: str) -> None:
    newest = max(path.name for path in (ROOT / "alembic/versions").glob("*.py")).partition("_")[0]
    assert migrated == f"schema at {newest}"


@pytest.mark.parametrize("workers", [1, 2])
def test_it_serves_without_any_right_lacks_nothing_and_under_load_ends_by_itself(
    engine: Engine, serve: Run, workers: int
) -> None:
    memory = f"--memory={MEMORY[workers]}"
    serve(*CONFINED, memory, f"--env=WXAUTH_WORKERS={workers}", "--health-interval=1s")
    assert engine.docker("exec", "serving", "wxauth", "alive") == ""
    assert "BAD  " not in engine.docker("exec", "serving", "wxauth", "check")
    with people_at_work(lambda: engine.phone("http://wxauth.test:8000")) as seen:
        until(lambda: seen["200"] > 50)
        engine.docker("stop", "serving")
        gone = seen.total()
        until(lambda: seen.total() > gone)
    assert engine.inspect("serving", "{{.State.ExitCode}}") == "0"
    assert {status for status in seen if status.isdigit()} == {"200"}, seen  # other requests could not connect


def test_started_as_shown_it_trusts_the_proxy_of_its_host_and_no_client(
    engine: Engine, run: Run, migrated: str, checkout: Path, network: str, authority: Path
) -> None:
    begin = block(PAGE, "docker build -t wxauth .").replace("docker build -t wxauth .\n", "")  # it is already built
    key = engine.run("sh", "-euc", begin, folder=checkout)
    assert len(b64decode(key, validate=True)) == 32
    gateway = engine.run("sh", "-euc", block(PAGE, "docker network inspect").replace("bridge", network))
    [migrate, start] = block(PAGE, "docker run --detach").split("\n", 1)
    own = f"--network={network} --volume={authority}:/authority.pem:ro"
    settings = engine.shared / ".env"
    text = settings.read_text()
    settings.write_text(f"{text}\nWXAUTH_TRUSTED_PROXIES={gateway}")
    try:
        for command in (migrate, start):
            engine.run("sh", "-euc", command.replace("docker run", f"docker run {own}"), folder=engine.shared)
        until(lambda: engine.inspect("wxauth", "{{.State.Health.Status}}") == "healthy")
        with engine.client("http://127.0.0.1:8000", "127.0.0.1") as proxy:
            assert proxy.get("/readyz").status_code == 200
            login = proxy.post("/v1/login", json={"code": "alice"}, headers={"X-Forwarded-For": "203.0.113.9"}).json()
            sessions = proxy.get("/v1/me/sessions", headers=bearer(login)).raise_for_status().json()["items"]
        assert [session["ip"] for session in sessions] == ["203.0.113.9"]
        assert "BAD  " not in engine.docker("exec", "wxauth", "wxauth", "check")
        (checkout / ".env").write_text(settings.read_text())
        upgrade = block(UPGRADING, "docker tag wxauth wxauth").replace("docker build -t wxauth .\n", "")
        for commands in (upgrade, block(UPGRADING, "docker tag wxauth:0.1.0")):
            engine.run("sh", "-euc", (commands + start).replace("docker run", f"docker run {own}"), folder=checkout)
            until(lambda: engine.inspect("wxauth", "{{.State.Health.Status}}") == "healthy")
            assert engine.docker("exec", "wxauth", "wxauth", "alive", "--ready") == ""
    finally:
        settings.write_text(text)
        engine.docker("rm", "--force", "wxauth")


def test_it_is_what_its_locks_name_and_nothing_that_could_install_more(engine: Engine, image: str) -> None:
    listed = "import importlib.metadata as m; print(*sorted({f'{d.name}=={d.version}' for d in m.distributions()}))"
    shown = engine.docker("run", "--rm", "--entrypoint=python", image, "-c", listed).split()
    locked = {f"{name}=={version}" for name, version in pins(ROOT / "requirements/server.lock").items()}
    own = {f"{name}=={wxauth.__version__}" for name in ("wxauth", "wxauth-guard")}
    installed = {it.lower().replace("_", "-") for it in shown}
    assert own <= installed <= locked | own
    search = """
        exec 2>/dev/null
        command -v pip
        find / -xdev -name ensurepip -o -xdev -name .env -o -xdev -name .wxauth
        find / -xdev -writable ! -type l ! -path '/tmp*' ! -path '/var/tmp*' ! -path '/run/lock*' ! -path '/dev*'
        true
    """
    assert engine.docker("run", "--rm", "--entrypoint=sh", image, "-c", search) == ""


def test_its_own_description_names_its_version_its_user_and_its_end(engine: Engine, image: str) -> None:
    form = '{{index .Config.Labels "org.opencontainers.image.version"}} {{.Config.User}} {{.Config.StopSignal}}'
    described = engine.docker("image", "inspect", f"--format={form}", image)
    assert described == f"{wxauth.__version__} 10001:10001 SIGTERM"


@pytest.mark.skipif(os.environ.get("GITHUB_REF_TYPE") != "tag", reason="two builds from nothing: once for each release")
def test_whoever_builds_twice_as_a_release_does_gets_the_same_bytes(engine: Engine, checkout: Path) -> None:
    script = (ROOT / "scripts/image").read_text()
    [form] = re.findall(r'output="\$1,(.*)"', script)
    engine.docker("save", f"--output={engine.shared}/base.tar", IMAGES["python"])
    engine.stop()
    writes_such_archives = ("--feature=containerd-snapshotter=true", f"--data-root={engine.shared}/data")
    engine.start(*writes_such_archives)
    build = ("buildx", "build", "--no-cache", "--provenance=false", "--build-arg=SOURCE_DATE_EPOCH=1700000000")
    digests = set()
    try:
        engine.docker("load", f"--input={engine.shared}/base.tar")
        for name in ("first", "again"):
            output = f"--output=type=oci,dest={engine.shared}/{name}.tar,{form}"
            engine.docker(*build, output, f"--metadata-file={engine.shared}/{name}.json", ".", folder=checkout)
            digests.add(json.loads((engine.shared / f"{name}.json").read_text())["containerimage.digest"])
    finally:
        engine.stop()
        engine.start()
    assert len(digests) == 1
