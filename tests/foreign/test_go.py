"""The package for Go, the page about it, and the example are used as a reader uses them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs import ROOT, block
from tests.foreign.jdks import UNREACHED
from tests.programs import NODE_PATIENCE, lacks, needs

pytestmark = [pytest.mark.process, pytest.mark.slow]

PAGE = "docs/build/go.md"
CLIENT = ROOT / "clients/go"


def run(line: str, folder: Path) -> None:
    needs("go")
    done = subprocess.run(["sh", "-ec", line], cwd=folder, capture_output=True, text=True, timeout=NODE_PATIENCE)
    if UNREACHED.search(done.stderr):
        lacks(f"needs packages: {done.stderr[-300:]} 未能下载依赖包")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_and_the_example_pass_their_own_tests() -> None:
    run("go vet ./... && go test ./...", CLIENT)
    run("go vet ./... && go test ./...", ROOT / "examples/go")


def test_a_reader_follows_the_page_to_a_service_with_a_test(tmp_path: Path) -> None:
    (tmp_path / "wxauth/clients").mkdir(parents=True)
    (tmp_path / "wxauth/clients/go").symlink_to(CLIENT)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/main.go").write_text(block(PAGE, 'package main\n\nimport (\n\t"fmt"'))
    (tmp_path / "shop/main_test.go").write_text(block(PAGE, "func TestOnlyClerksRefund"))
    run(f"{block(PAGE, 'go mod init')}\ngo vet . && go test .", tmp_path / "shop")
    assert block("clients/go/README.md", "package main") == block(PAGE, 'package main\n\nimport (\n\t"fmt"')


def test_each_framework_that_the_page_names_admits_the_callers_with_the_role(tmp_path: Path) -> None:
    shop = Path(shutil.copytree(ROOT / "tests/foreign/go", tmp_path / "shop"))
    module = (shop / "go.mod").read_text()
    (shop / "go.mod").write_text(module.replace("../../../clients/go", str(CLIENT)))
    for name in ("Gin", "Echo", "Fiber", "Kratos", "GRPC"):
        (shop / f"{name.lower()}.go").write_text(block(PAGE, f"func Guard{name}("))
    envelope = block(PAGE, "wxauthguard.Refusals(func")
    imports = '"encoding/json"\n"net/http"\n"github.com/wxauth/wxauth/clients/go/wxauthguard"\n'
    function = f"func NewGuard(issuer string) *wxauthguard.Guard {{\n{envelope}\nreturn guard\n}}\n"
    written = f"package shop\nimport ({imports})\n{function}"
    (shop / "envelope.go").write_text(written)
    run("go vet . && go test .", shop)


def test_the_package_has_the_version_of_wxauth() -> None:
    written = (CLIENT / "wxauthguard/guard.go").read_text()
    version = re.search(r'Version = "(.*)"', written)
    assert version is not None
    assert f'version = "{version[1]}"' in (ROOT / "pyproject.toml").read_text()
