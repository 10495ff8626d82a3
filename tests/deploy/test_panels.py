"""The apps that panels install from a form are complete. `tests/containers` starts them."""

from pathlib import Path

import kubernetes_validate
import pytest
from kubernetes_validate.utils import validate

from scripts.write_panels import ASKED, files
from tests.deploy.manifests import ANSWERS, resolved_for_sealos
from wxauth.settings.loading import load_settings, setting_faults
from wxauth.settings.settings import Settings


def test_the_files_are_those_that_the_script_writes() -> None:
    assert {path: path.read_text() for path in files()} == files()


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
            assert setting_faults(environment, env_file=None) == []
            load_settings(Settings, env_file=tmp_path / ".env", secrets_dir=tmp_path)
