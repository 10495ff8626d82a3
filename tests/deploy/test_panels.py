"""What panels install from a form: every variable is asked for or the panel's own, and the outcome starts."""

import base64
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import validate

from scripts.write_panels import ASKED, PANEL, SEALOS, files
from wxauth.server.core.settings import Settings, load_settings, unknown_names

ANSWERS = {
    "ISSUER": "https://auth.example.com",
    "SECRET_KEY": base64.b64encode(bytes(32)).decode(),
    "APP_ID": "wx1a2b3c4d5e6f7a8b",
    "APP_SECRET": "0123456789abcdef0123456789abcdef",
}
OF_PANEL = {"CONTAINER_NAME": "wxauth", "PANEL_DB_HOST": "postgresql", "PANEL_DB_PORT": "5432"}
OF_SEALOS = {"SEALOS_CLOUD_DOMAIN": "example.com", "SEALOS_CERT_SECRET_NAME": "wildcard"}
OF_POSTGRES = {"username": "postgres", "password": "secret", "host": "wxauth-pg-postgresql.ns.svc", "port": "5432"}


def settings_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str]) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert unknown_names(environment, env_file=None) == []
    return load_settings(Settings, env_file=tmp_path / ".env", secrets_dir=tmp_path)


def test_the_files_are_those_that_the_script_writes() -> None:
    assert {path: path.read_text() for path in files()} == files()


def test_1panel_asks_for_every_variable_and_the_answers_start_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [folder] = [path.parent for path in PANEL.glob("*/docker-compose.yml")]
    fields = yaml.safe_load((folder / "data.yml").read_text())["additionalProperties"]["formFields"]
    given = {field["envKey"]: str(field["default"]) for field in fields} | OF_PANEL | ANSWERS
    required = {field["envKey"] for field in fields if field["required"] and not field["default"]}
    assert required == set(ANSWERS)
    text = (folder / "docker-compose.yml").read_text()
    resolved = yaml.safe_load(re.sub(r"\$\{(\w+)\}", lambda found: given[found[1]], text))
    settings = settings_of(monkeypatch, tmp_path, resolved["services"]["wxauth"]["environment"])
    assert settings.issuer == ANSWERS["ISSUER"]
    assert settings.database_url.get_secret_value() == "postgresql://wxauth:wxauth@postgresql:5432/wxauth"
    assert resolved["services"]["wxauth"]["ports"] == [f"127.0.0.1:8000:{settings.port}"]


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


def test_sealos_gets_manifests_that_are_valid_and_start_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifests = resolved_for_sealos()
    for manifest in manifests:
        if "kubeblocks" not in manifest["apiVersion"] and "sealos" not in manifest["apiVersion"]:
            validate(manifest, kubernetes_validate.latest_version(), strict=True)
    [secret] = [it for it in manifests if it["kind"] == "Secret"]
    [deployment] = [it for it in manifests if it["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    parts = {it["name"]: OF_POSTGRES[it["valueFrom"]["secretKeyRef"]["key"]] for it in container["env"][:-1]}
    url = re.sub(r"\$\((\w+)\)", lambda found: parts[found[1]], container["env"][-1]["value"])
    given = secret["stringData"] | {container["env"][-1]["name"]: url}
    settings = settings_of(monkeypatch, tmp_path, given)
    assert settings.issuer == "https://wxauth-aaaaaaaa.example.com"
    assert settings.port == container["ports"][0]["containerPort"]


def test_each_answer_to_choose_from_is_a_valid_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    required = {f"WXAUTH_{name}": value for name, value in ANSWERS.items()}
    required["WXAUTH_DATABASE_URL"] = "postgresql://wxauth@db/wxauth"
    for asked in ASKED:
        for choice in asked.choices:
            settings_of(monkeypatch, tmp_path, {**required, f"WXAUTH_{asked.name}": choice})
