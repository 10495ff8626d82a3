"""The wheels, the source distribution, the locks and the Dockerfile are complete and agree with each other."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from threading import Thread
from typing import ClassVar
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import wxauth
from tests.programs import ROOT, demand_mark, lacks, output_of
from tests.repository.project import GUARD, in_a_clone, metadata, pins

LOCKS = sorted(ROOT.glob("requirements/*.lock"))
DEV_LOCK = ROOT / "requirements/dev.lock"
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LOWEST_LOCK = ROOT / "requirements/guard-lowest.lock"
SEPARATE_LOCKS = [ROOT / "requirements/relying-parties.lock", ROOT / "requirements/site.lock"]
"""The locks of products that have their own environments."""
SIBLING = """
from typing import Annotated
from fastapi import Depends, FastAPI
from wxauth_guard import BearerGuard, Principal

guard = BearerGuard("https://auth.example.com")
app = FastAPI()

@app.get("/orders")
async def orders(user: Annotated[Principal, Depends(guard)]) -> dict[str, str]:
    return {"for": user.openid}
"""
"""The source of a complete sibling."""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command with only the given environment variables, and return its output."""
    demand_mark("wheel")
    return output_of(*command, cwd=cwd, env=environment)


def build_wheel(product: Path, folder: Path) -> Path:
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir")
    run(sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", folder, product, cwd=folder)
    return next(folder.iterdir())


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def guard_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT / "clients/python", tmp_path_factory.mktemp("guard"))


@pytest.fixture(scope="session")
def desk_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment that contains only the desk's wheel."""
    return environment_with(tmp_path_factory, build_wheel(ROOT / "desk", tmp_path_factory.mktemp("desk")))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder, cwd=ROOT)
    return next(folder.iterdir())


@pytest.fixture(scope="session")
def installed(wheel: Path, guard_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment that contains the wheels of the service and the guard.

    It uses the dependencies of this environment through a path on which `.pth` files have no effect. So the checkout,
    which this environment includes with a `.pth` file, isn't available there.
    """
    return environment_with(tmp_path_factory, guard_wheel, wheel)


def environment_with(tmp_path_factory: pytest.TempPathFactory, *wheels: Path) -> Path:
    """Return the programs of a fresh environment with these wheels and their dependencies."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    programs = home / "bin"
    offline = ("--no-index", "--no-deps", "--no-cache-dir")
    run(sys.executable, "-m", "pip", "--python", programs / "python", "install", *offline, *wheels, cwd=home)
    packages = sysconfig.get_path("purelib", vars={"base": str(home)})
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return programs


@pytest.mark.wheel
def test_the_wheel_alone_migrates_an_empty_database(installed: Path, tmp_path: Path, empty_database_url: str) -> None:
    home = run(installed / "python", "-c", "import wxauth; print(wxauth.__file__)", cwd=tmp_path)
    assert Path(home).is_relative_to(installed.parent)
    newest = max(path.name for path in (ROOT / "alembic/versions").glob("*.py")).partition("_")[0]
    printed = run(installed / "wxauth", "migrate", cwd=tmp_path, WXAUTH_DATABASE_URL=empty_database_url)
    assert printed == f"schema at {newest}\n"


@pytest.mark.wheel
def test_what_python_jose_brings_beside_cryptography_is_never_loaded(installed: Path, tmp_path: Path) -> None:
    hidden = "import sys; sys.modules.update(dict.fromkeys(['ecdsa', 'pyasn1', 'rsa']))"
    used = (
        "from wxauth.keys.keyring import RsaKey; from wxauth.tokens import SigningKey, sign; import wxauth.asgi; "
        "keys = SigningKey.generate(), RsaKey.generate(); print([sign(key.signer, b'e30', b'{}') for key in keys])"
    )
    run(installed / "python", "-c", f"{hidden}; {used}", cwd=tmp_path)


@pytest.mark.wheel
def test_a_wheel_in_a_siblings_repository_is_installed_by_its_hash_alone(guard_wheel: Path, tmp_path: Path) -> None:
    shown = re.search(r"^wheel=.*\n^echo .*\n", (ROOT / "docs/build/siblings.md").read_text(), re.MULTILINE)
    assert shown
    shutil.copy(guard_wheel, tmp_path)
    run("/bin/sh", "-ec", shown[0], cwd=tmp_path, PATH=os.environ["PATH"])
    pip = f"{sys.executable} -m pip --disable-pip-version-check install --no-deps --no-index --target there"
    install = ("/bin/sh", "-ec", f"{pip} --requirement requirements.txt")
    run(*install, cwd=tmp_path, PATH=os.environ["PATH"])
    assert (tmp_path / "there/wxauth_guard").is_dir()
    (copy,) = tmp_path.glob("*.whl")
    copy.write_bytes(copy.read_bytes() + b" ")
    refused = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True)
    assert (refused.returncode, "DO NOT MATCH" in refused.stderr) == (1, True), refused.stderr


# Installation with pip, from an index that contains none of the three packages. Until they're published, anyone can
# take their names.


class Index(BaseHTTPRequestHandler):
    """An index that redirects to the machine's own index, except for names that begin with wxauth."""

    there: str
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        name = self.path.strip("/").lower()
        self.asked.append(name)
        self.send_response(404 if name.startswith("wxauth") else 302)
        self.send_header("Location", f"{self.there.rstrip('/')}/{name}/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def index() -> Iterator[str]:
    settings = output_of(sys.executable, "-m", "pip", "config", "list")
    own = re.search(r"index-url='(.*)'", settings)
    Index.there = own[1] if own else "https://pypi.org/simple"
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def pip_install(home: Path, index: str, *what: str | Path) -> Path:
    """Let pip install these packages into a fresh environment, in the lock's versions, and return its programs."""
    venv.create(home, with_pip=False, symlinks=True)
    programs = home / "bin"
    constraints = home / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins(DEV_LOCK, THIS_PYTHON).items()))
    env = {name: value for name, value in os.environ.items() if name not in {"PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"}}
    env |= {"PIP_INDEX_URL": index, "no_proxy": "127.0.0.1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    pip = (sys.executable, "-m", "pip", "--python", str(programs / "python"), "--timeout=15", "--retries=3")
    install = [*pip, "install", "--no-compile", f"--constraint={constraints}", *map(str, what)]
    done = subprocess.run(install, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        download = [*pip, "download", "--no-deps", "-d", str(home), "httpx"]
        if subprocess.run(download, env=env, capture_output=True).returncode != 0:
            lacks("needs a package index that pip can reach (需要可访问的软件包索引)")
        pytest.fail(done.stderr)
    assert not [name for name in Index.asked if name.startswith("wxauth")], "whoever has the name there would be asked"
    return programs


@pytest.fixture(scope="session")
def slim(index: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that contains only the guard."""
    return pip_install(tmp_path_factory.mktemp("slim"), index, "./clients/python") / "python"


@pytest.mark.wheel
@pytest.mark.parametrize(
    ("products", "commands"),
    [
        (["./clients/python", "."], ["wxauth --version", "wxauth --help"]),
        (
            ["./clients/python", ".", "./desk"],
            ["wxauth --version", "wxauth-desk dev --help", "wxauth-desk wechat --help"],
        ),
        (["./desk"], ["wxauth-desk wechat --help"]),
    ],
    ids=" ".join,
)
def test_pip_installs_from_a_clone_what_no_index_has(
    index: str, tmp_path: Path, products: list[str], commands: list[str]
) -> None:
    programs = pip_install(tmp_path / "home", index, *products)
    for command in commands:
        program, *arguments = command.split()
        assert run(programs / program, *arguments, cwd=tmp_path)
    assert (programs / "wxauth").exists() == ("." in products)


def closure(*requirements: str) -> set[str]:
    """Return the packages that pip would install for these requirements, by the metadata of the installed packages."""
    found: dict[str, set[str]] = {}
    wanted = [Requirement(requirement) for requirement in requirements]
    while wanted:
        requirement = wanted.pop()
        name, extras = canonicalize_name(requirement.name), {"", *requirement.extras}
        if extras <= found.setdefault(name, set()):
            continue
        found[name] |= extras
        needed = map(Requirement, distribution(name).requires or [])
        wanted += [one for one in needed if not one.marker or any(one.marker.evaluate({"extra": e}) for e in extras)]
    return set(found)


@pytest.mark.wheel
def test_pip_installs_the_guard_and_nothing_of_the_service(slim: Path, tmp_path: Path) -> None:
    listing = "from importlib.metadata import distributions as d; print(*(one.name for one in d()))"
    brought = {canonicalize_name(name) for name in run(slim, "-c", listing, cwd=tmp_path).split()}
    guard = closure(*GUARD["dependencies"])
    assert brought == guard | {"wxauth-guard"}
    assert {canonicalize_name(Requirement(one).name) for one in GUARD["dependencies"]} == {"cryptography", "httpx"}
    assert not {"python-jose", "ecdsa", "pyasn1", "rsa"} & brought
    used = "from wxauth_guard.testing import TestIssuer as T; issuer = T(); issuer.guard().verify_sync(issuer.token())"
    run(slim, "-c", used, cwd=tmp_path)
    assert not {"fastapi", "starlette", "pydantic", "pydantic-core"} & brought
    service = set(pins(ROOT / "requirements/server.lock")) - guard
    assert {"sqlalchemy", "sqlmodel", "asyncpg", "alembic", "greenlet", "httptools", "uvicorn"} <= service


GUARD_MODULES = {
    f"wxauth_guard.{name}"
    for name in (
        *(
            "asgi",
            "bearer",
            "claims",
            "entry",
            "errors",
            "fastapi",
            "i18n",
            "json_texts",
            "keys",
            "names",
            "problems",
            "urls",
            "verifier",
            "wsgi",
        ),
    )
}


@pytest.mark.parametrize(
    ("loading", "own"),
    [
        ("import wxauth_guard.pytest_plugin", {"wxauth_guard.pytest_plugin"}),
        ("from wxauth_guard import BearerGuard", GUARD_MODULES),
        ("import wxauth_guard.testing", GUARD_MODULES | {"wxauth_guard.testing"}),
    ],
)
@pytest.mark.wheel
def test_an_import_loads_only_its_own_dependencies(
    installed: Path, tmp_path: Path, loading: str, own: set[str]
) -> None:
    imports = "import sys, fastapi, httpx, pydantic, pytest, cryptography.hazmat.primitives.asymmetric.ec"
    dependencies = f"{imports}; known = {{*sys.modules}}"
    loading = f"{dependencies}; {loading}; print(*{{*sys.modules}} - known); print(*known)"
    loaded, known = (set(line.split()) for line in run(installed / "python", "-c", loading, cwd=tmp_path).splitlines())
    assert {".".join(name.split(".")[:2]) for name in loaded if name.startswith("wxauth_guard.")} == own
    packages, known_packages = ({name.partition(".")[0] for name in names} for names in (loaded, known))
    assert packages - known_packages == {"wxauth_guard"}


# The pytest plugin in a sibling's own tests.

USING = """
import orders, pytest
from wxauth_guard.testing import TestIssuer

@pytest.fixture
async def client(wxauth_issuer):
    import httpx
    orders.app.dependency_overrides[orders.guard] = wxauth_issuer.guard()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(orders.app), base_url="http://orders") as client:
        yield client

async def test_a_token_of_the_issuers_is_taken(client, wxauth_issuer):
    answer = await client.get("/orders", headers=wxauth_issuer.headers(openid="o-1"))
    assert answer.json() == {"for": "o-1"}

async def test_no_token_is_401(client):
    assert (await client.get("/orders")).status_code == 401

@pytest.fixture(scope="session")
def wxauth_issuers_kind(wxauth_issuer):
    return type(wxauth_issuer)

def test_any_fixture_may_use_it(wxauth_issuers_kind):
    assert wxauth_issuers_kind is TestIssuer
"""
NOT_USING = """
import sys

def test_the_plugin_loads_nothing_before_it_is_used():
    assert not {"wxauth_guard.names", "wxauth_guard.testing", "fastapi", "cryptography"} & set(sys.modules)
"""
SIBLING_PYTEST = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
pythonpath = .
"""


def run_tests(installed: Path, folder: Path, tests: str, *options: str) -> str:
    """Run pytest in a sibling's project, where warnings are errors as in this project, and return its output."""
    (folder / "orders.py").write_text(SIBLING)
    (folder / "test_orders.py").write_text(tests)
    (folder / "pytest.ini").write_text(SIBLING_PYTEST)
    return run(installed / "python", "-m", "pytest", "--strict-config", "--strict-markers", *options, cwd=folder)


@pytest.mark.wheel
def test_a_siblings_tests_have_an_issuer_and_coverage(installed: Path, tmp_path: Path) -> None:
    printed = run_tests(installed, tmp_path, USING, "--cov=orders")
    assert "3 passed" in printed
    assert "arning" not in printed
    assert re.search(r"orders\.py .* 100%", printed)


@pytest.mark.wheel
def test_tests_that_need_no_issuer_pay_for_none(installed: Path, tmp_path: Path) -> None:
    assert "1 passed" in run_tests(installed, tmp_path, NOT_USING)


SHARED = {
    *(f"clients/miniprogram/{name}" for name in ("wxauth.js", "wxauth-scan.js", "wxauth-site.js")),
    *(f"src/wxauth/console/page/{name}" for name in ("base.css", "dom.js", "languages.js")),
    "src/wxauth/sites/pages/page/icon.svg",
    "examples/mcp/server.py",
    "examples/sibling/shop.py",
}
"""The files of other folders that the desk shows."""
CONTENTS = {
    ".": {"src/": "", "alembic/": "wxauth/_migrations/"},
    "clients/python": {"clients/python/src/": ""},
    "desk": {
        "desk/src/": "",
        **{path: f"wxauth_desk/_shared/{path.rpartition('/')[2]}" for path in SHARED},
        "examples/mcp/server.py": "wxauth_desk/_shared/mcp_server.py",
    },
}
"""The paths in each product's wheel for the folders of the checkout."""


@in_a_clone
@pytest.mark.wheel
def test_each_wheel_of_a_clean_clone_has_what_is_its_own_and_nothing_else(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    output_of("git", "clone", "--quiet", ROOT, clone)
    known = output_of("git", "ls-files", cwd=clone).splitlines()
    for number, (product, folders) in enumerate(CONTENTS.items()):
        made = tmp_path / str(number)
        made.mkdir()
        wheel = build_wheel(clone / product, made)
        own = {
            there + path.removeprefix(here)
            for here, there in folders.items()
            for path in known
            if path.startswith(here)
        }
        about = f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"
        own |= {f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
        assert {*ZipFile(wheel).namelist()} == own
        assert metadata(wheel)["Version"] == wxauth.__version__
        if product == "clients/python":
            assert wheel.stat().st_size <= 80 * 1024


@pytest.mark.wheel
def test_the_desk_refuses_a_source_distribution_from_which_no_wheel_could_be_built(tmp_path: Path) -> None:
    # `python -m build` and pip call the same hook, in a process of its own.
    backend = f"from hatchling.build import build_sdist; build_sdist({str(tmp_path)!r})"
    for command in (["-m", "hatchling", "build", "--directory", str(tmp_path)], ["-c", backend]):
        done = subprocess.run([sys.executable, *command], cwd=ROOT / "desk", capture_output=True, text=True)
        assert done.returncode == 1
        assert "python -m build --wheel desk" in done.stderr
        assert "Traceback" not in done.stderr
    assert not [*tmp_path.glob("*.tar.gz")]


@pytest.mark.wheel
def test_the_desk_runs_the_simulated_wechat_without_service_and_guard(desk_alone: Path, tmp_path: Path) -> None:
    serving = """
import asyncio, httpx, sys
sys.modules.update(dict.fromkeys(("wxauth", "wxauth_guard")))
from wxauth_desk.wechat import create_simulator

async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_simulator()), base_url="http://wechat") as client:
        print((await client.get("/desk/wxauth.js")).raise_for_status().text, end="")
        for name in ("", "desk.js", "desk.css", "base.css", "dom.js", "languages.js", "icon.svg"):
            (await client.get(f"/desk/{name}")).raise_for_status()
        assert (await client.get("/desk/setup")).json()["guides"] is None

asyncio.run(main())
"""
    printed = run(desk_alone / "python", "-c", serving, cwd=tmp_path)
    assert printed == (ROOT / "clients/miniprogram/wxauth.js").read_text()
    done = subprocess.run([desk_alone / "wxauth-desk", "dev"], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert (done.returncode, done.stderr.startswith("wxauth-desk dev requires the service and the guard")) == (1, True)


def checksums(wheel: Path) -> dict[str, int]:
    """Return the CRC of each file in a wheel."""
    with ZipFile(wheel) as archive:
        return {file.filename: file.CRC for file in archive.infolist()}


@pytest.mark.wheel
def test_the_source_distribution_makes_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        # Debian 12's Python supports no filters, and later versions warn if no filter is set.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    source = next(tmp_path.iterdir())
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path, cwd=source)
    again = next(tmp_path.glob("*.whl"))
    assert checksums(again) == checksums(wheel)
    # The source distribution also contains the files that its tests need, even files that only some tests read.
    names = [f"tests/repository/test_{name}.py" for name in ("programs", "release", "versions")]
    tests = ["-m", "not (wheel or node or process)", "-k", "not bill_of_materials", "--quiet", "--workers=0"]
    run(sys.executable, "-m", "pytest", *tests, *names, cwd=source)


@in_a_clone
@pytest.mark.wheel
def test_the_source_distribution_has_all_that_git_knows(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*output_of("git", "ls-files", cwd=ROOT).splitlines()} - names == set()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_no_address_and_a_hash_for_each_pin(lock: Path) -> None:
    requirements = lock.read_text().replace("\\\n", "").splitlines()
    pin = re.compile(r"[\w.-]+==[^ :]+( ; [^:]+)?( +--hash=sha256:[0-9a-f]{64})+")
    assert requirements
    assert not [line for line in requirements if not pin.fullmatch(line)]


@pytest.mark.parametrize("python", ["3.11", "3.15"])
def test_the_locks_agree_on_every_version_but_the_oldest(python: str) -> None:
    assert len(LOCKS) == 9
    everything = pins(DEV_LOCK, python)
    for lock in LOCKS:
        if lock != LOWEST_LOCK:
            pinned = pins(lock, python)
            assert pinned.items() >= {name: everything[name] for name in pinned.keys() & everything.keys()}.items()
            assert lock in SEPARATE_LOCKS or pinned.keys() <= everything.keys()


def test_no_lock_names_one_of_the_three_products() -> None:
    assert [lock.name for lock in LOCKS if re.search(r"^wxauth", lock.read_text(), re.MULTILINE)] == []


BEFORE_PUBLICATION = re.compile(
    r"\b(?:pip3?|pipx|uv|poetry|pdm|conda)\b[^\n`]*?\b(?:add|download|install|run|wheel)\b[^\n`]*?[\s'\"](wxauth[\w-]*(?=[\[=<>~!'\"`\s]|$))",
    re.MULTILINE,
)


@in_a_clone
def test_no_page_takes_a_product_from_an_index() -> None:
    """Only the page about publishing does, after it has published the products."""
    names = output_of("git", "ls-files", cwd=ROOT).splitlines()
    shown = [name for name in names if not name.endswith("/contribute/publishing.md")]
    kinds = (".md", ".py", ".po", ".txt", ".toml", ".yml", ".yaml")
    found = {
        name: match[0]
        for name in shown
        if (name.endswith(kinds) or name.startswith(("scripts/", "deploy/"))) and not name.startswith("tests/")
        for match in BEFORE_PUBLICATION.finditer((ROOT / name).read_text("utf-8", "replace"))
    }
    assert found == {}
    assert BEFORE_PUBLICATION.search("run `pip install 'wxauth-guard[fastapi]'`")
    assert not BEFORE_PUBLICATION.search("pip install ../wxauth/clients/python /path/to/wxauth ./wxauth")


@pytest.mark.process
@pytest.mark.parametrize("script", ["dev", "test", "check"])
def test_a_script_of_a_fresh_clone_explains_itself_without_an_install(tmp_path: Path, script: str) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    printed = subprocess.check_output([tmp_path / "scripts" / script, "--help"], text=True)
    assert printed.startswith((ROOT / "scripts" / script).read_text().splitlines()[1].removeprefix("# "))
    assert not (tmp_path / ".venv").exists()


def test_the_guard_is_tested_with_the_oldest_versions_that_it_takes() -> None:
    requirements = map(Requirement, [*GUARD["dependencies"], *GUARD["optional-dependencies"]["fastapi"]])
    oldest = {requirement.name: str(requirement.specifier).removeprefix(">=") for requirement in requirements}
    tested = pins(LOWEST_LOCK, "3.9")
    for name, version in oldest.items():
        assert Version(tested[name]) == Version(version), name


def dockerfile() -> list[list[str]]:
    """Return the instructions before the first stage and of each stage. Each instruction is one line."""
    text = re.sub(r"^#.*\n|\\\n\s*", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("FROM "):
            stages.append([])
        if line:
            stages[-1].append(line)
    return stages


def test_the_image_is_built_only_from_hashed_packages() -> None:
    installs = [
        command
        for stage in dockerfile()
        for line in stage
        for command in line.split("&&")
        if re.search(r"\bpip\b.* (install|wheel) ", command)
    ]
    assert len(installs) == 4
    for command in installs:
        assert "--require-hashes --no-deps --only-binary :all: -r requirements" in command or "--no-index" in command
    assert "://" not in (ROOT / "Dockerfile").read_text()


@pytest.mark.process
@pytest.mark.requirement("asvs-13.4.1")
def test_what_the_image_is_built_from_makes_the_wheel(tmp_path: Path) -> None:
    _, everything, *lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert everything == "*"
    ignored = shutil.ignore_patterns(*(line.removeprefix("**/") for line in lines if line.startswith("**/")))
    for name in (line[1:] for line in lines if line.startswith("!")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    output_of(sys.executable, "-m", "hatchling", "build", "--target", "wheel", cwd=tmp_path)
    assert list(tmp_path.glob("dist/*.whl"))
