"""`examples/uni-app`, built for WeChat by uni-app's own toolchain, and run beside `wxauth dev`."""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.processes import WXAUTH, Running, environment, free_port
from tests.programs import needs, needs_node, run_node_tests
from wxauth.server.dev.wechat import APPS

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/uni-app"
NATIVE = ROOT / "examples/miniprogram"
CLIENT = ROOT / "clients/miniprogram"
PATIENCE = 300


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `npm run build` makes of it."""
    needs_node(EXAMPLE)
    folder = tmp_path_factory.mktemp("uni-app")
    done = subprocess.run(
        [needs("npm"), "run", "build", "--prefix", str(EXAMPLE)],
        env=environment(UNI_OUTPUT_DIR=str(folder)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.node
@pytest.mark.process
def test_the_built_app_logs_in_and_calls_another_service(built: Path, tmp_path: Path) -> None:
    port, wechat_port, orders_port = (str(free_port()) for _ in range(3))
    service_url, orders_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{orders_port}"
    uvicorn = str(Path(WXAUTH).with_name("uvicorn"))
    with (
        Running(WXAUTH, "dev", "--port", port, "--wechat-port", wechat_port, cwd=tmp_path) as service,
        Running(
            *(uvicorn, "examples.sibling.app:app", "--app-dir", str(ROOT), "--port", orders_port),
            cwd=tmp_path,
            env={"WXAUTH_ISSUER": service_url},
        ) as orders,
    ):
        service.wait_for("wxauth is ready")
        orders.wait_for("Uvicorn running")
        world = {
            "BUILT": str(built),
            "SERVICE_URL": service_url,
            "WECHAT_URL": f"http://127.0.0.1:{wechat_port}",
            "ORDERS_URL": orders_url,
            "APP_ID": APPS[0]["app_id"],
        }
        run_node_tests("uni-app/uni_app.test.js", world)
        service.end(signal.SIGTERM)


@pytest.mark.node
def test_the_developer_tools_find_the_project_to_open(built: Path) -> None:
    pages = [page["path"] for page in json.loads((EXAMPLE / "src/pages.json").read_text())["pages"]]
    assert json.loads((built / "app.json").read_text())["pages"] == pages
    for page in pages:
        assert all((built / f"{page}.{suffix}").is_file() for suffix in ("js", "json", "wxml"))
    project = json.loads((built / "project.config.json").read_text())
    assert (project["appid"], project["setting"]["urlCheck"]) == ("touristappid", False)


def test_the_uni_app_example_has_the_unchanged_client_and_the_native_examples_simulation() -> None:
    for name in ("wxauth.js", "wxauth.d.ts"):
        is_equal = (EXAMPLE / "src" / name).read_bytes() == (CLIENT / name).read_bytes()
        assert is_equal, f"cp clients/miniprogram/{name} examples/uni-app/src/"
    assert (EXAMPLE / "src/config.js").read_text() == (NATIVE / "config.js").read_text()
    native = (NATIVE / "simulated.js").read_text()
    assert (EXAMPLE / "src/simulated.js").read_text() == re.sub(r"\bwx\b(?=[.`])", "uni", native)
