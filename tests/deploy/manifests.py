"""The manifests for Kubernetes and the panels, as Kubernetes and the panels resolve them."""

import base64
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from scripts.write_panels import SEALOS
from tests.programs import needs, output_of

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
SECRETS = {
    "wxauth_database_url": "postgresql://wxauth@db:5432/wxauth",
    "wxauth_secret_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "wxauth_app_id": "wx1a2b3c4d5e6f7a8b",
    "wxauth_app_secret": "0123456789abcdef0123456789abcdef",
}
"""The contents of the secret files that the README tells the operator to make."""
Manifest = dict[str, Any]


@cache
def built() -> list[Manifest]:
    """Return the manifests that `kubectl apply -k` would send."""
    return list(yaml.safe_load_all(output_of(needs("kubectl"), "kustomize", FOLDER)))


def one(kind: str, name: str = "wxauth") -> Manifest:
    """Return the manifest of this kind and name."""
    (manifest,) = (m for m in built() if m["kind"] == kind and m["metadata"]["name"] == name)
    return manifest


def pods() -> dict[str, Manifest]:
    """Return the templates of the pods that serve and of the pod that migrates."""
    templates = {"serve": one("Deployment"), "migrate": one("Job", "wxauth-migrate")}
    return {name: manifest["spec"]["template"] for name, manifest in templates.items()}


def config() -> dict[str, str]:
    (found,) = (m for m in built() if m["kind"] == "ConfigMap")
    return found["data"]


def haproxy_of_the_controller(port: int, wxauth: str) -> str:
    """Return the configuration that HAProxy's ingress controller writes for the values of `haproxy-values.yaml`."""
    values = yaml.safe_load((FOLDER / "haproxy-values.yaml").read_text())["controller"]["config"]
    assert values.pop("ssl-redirect") == "true"  # the test speaks plain HTTP
    of_global, of_frontend = values.pop("global-config-snippet"), values.pop("frontend-config-snippet")
    times = [f"timeout {name.removeprefix('timeout-')} {time}" for name, time in values.items()]
    assert all(name.startswith("timeout-") for name in values)
    lines = [
        *("global", of_global, "defaults", "mode http", "timeout connect 5s", "option redispatch", *times),
        *("frontend http", f"bind 127.0.0.1:{port}", of_frontend, "default_backend wxauth"),
        *("backend wxauth", "option forwardfor", f"server one {wxauth}"),
    ]
    return "\n".join(lines) + "\n"


ANSWERS = {
    "ISSUER": "https://auth.example.com",
    "SECRET_KEY": base64.b64encode(bytes(32)).decode(),
    "APP_ID": "wx1a2b3c4d5e6f7a8b",
    "APP_SECRET": "0123456789abcdef0123456789abcdef",
}
OF_PANEL = {"CONTAINER_NAME": "wxauth", "PANEL_DB_HOST": "postgresql", "PANEL_DB_PORT": "5432"}
OF_SEALOS = {"SEALOS_CLOUD_DOMAIN": "example.com", "SEALOS_CERT_SECRET_NAME": "wildcard"}


def resolved_for_sealos() -> list[dict[str, Any]]:
    """Return the manifests after Sealos has resolved the template's functions and variables."""
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
