"""What panels install from a form. `tests/containers` starts it."""

import base64
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import validate

from scripts.write_panels import ASKED, SEALOS, files
from wxauth.settings.settings import Settings, load_settings, unknown_names

ANSWERS = {
    "ISSUER": "https://auth.example.com",
    "SECRET_KEY": base64.b64encode(bytes(32)).decode(),
    "APP_ID": "wx1a2b3c4d5e6f7a8b",
    "APP_SECRET": "0123456789abcdef0123456789abcdef",
}
OF_PANEL = {"CONTAINER_NAME": "wxauth", "PANEL_DB_HOST": "postgresql", "PANEL_DB_PORT": "5432"}
OF_SEALOS = {"SEALOS_CLOUD_DOMAIN": "example.com", "SEALOS_CERT_SECRET_NAME": "wildcard"}


def test_the_files_are_those_that_the_script_writes() -> None:
    assert {path: path.read_text() for path in files()} == files()


def resolved_for_sealos() -> list[dict[str, Any]]:
    """The manifests, with the template's functions and variables as Sealos resolves them."""
    text = SEALOS.read_text()
    template = next(yaml.safe_load_all(text))["spec"]
    values = {f"inputs.{name}": ANSWERS.get(name) or it["default"] for name, it in template["inputs"].items()}
    made = re.compile(r"\$\{\{ random\((\d+)\) \}\}")
    values |= {
        f"defaults.{name}": made.sub(lambda found: "a" * int(found[1]), it["value"])
        for name, it in template["defaults"].items()
    }
    values |= OF_SEALOS
    values |= {f"base64({name})": base64.b64encode(value.encode()).decode() for name, value in values.items()}
    resolved = re.sub(r"\$\{\{ (?!random)(.*?) \}\}", lambda found: values[found[1]], text)
    return list(yaml.safe_load_all(resolved))[1:]


def test_sealos_gets_valid_manifests() -> None:
    for manifest in resolved_for_sealos():
        if "kubeblocks" not in manifest["apiVersion"] and "sealos" not in manifest["apiVersion"]:
            validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_each_answer_to_choose_from_is_a_valid_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    required = {f"WXAUTH_{name}": value for name, value in ANSWERS.items()}
    required["WXAUTH_DATABASE_URL"] = "postgresql://wxauth@db/wxauth"
    for asked in ASKED:
        for choice in asked.choices:
            environment = {**required, f"WXAUTH_{asked.name}": choice}
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            assert unknown_names(environment, env_file=None) == []
            load_settings(Settings, env_file=tmp_path / ".env", secrets_dir=tmp_path)
