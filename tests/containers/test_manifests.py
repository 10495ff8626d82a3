"""Docker runs the image with the users, rights, files, memory and probes of the manifests for Kubernetes and panels."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from scripts.write_panels import IMAGE, PANEL
from tests.containers.conftest import SERVER
from tests.containers.engine import Engine
from tests.deploy import manifests
from tests.processes import until

pytestmark = [pytest.mark.container, pytest.mark.operations]

Manifest = dict[str, Any]


def options_of(pod: Manifest, container: Manifest, env: Mapping[str, str]) -> list[str]:
    """Return the options of `docker run` that make a container as these manifests describe it."""
    whole, own = pod["securityContext"], container["securityContext"]
    assert whole["runAsNonRoot"] is True
    user = f"--user={whole['runAsUser']}:{whole['runAsGroup']}"
    memory = container["resources"]["limits"]["memory"].replace("Mi", "m")
    options = [user, f"--memory={memory}", f"--memory-swap={memory}"]
    options += [f"--group-add={group}" for name, group in whole.items() if name == "fsGroup"]
    options += ["--read-only"] * own["readOnlyRootFilesystem"]
    options += ["--security-opt=no-new-privileges"] * (not own["allowPrivilegeEscalation"])
    options += [f"--cap-drop={it}" for it in own["capabilities"]["drop"]]
    return options + [f"--env={name}={value}" for name, value in env.items()]


def files_of(secret: Manifest, values: Mapping[str, str], group: int, folder: Path) -> Path:
    """Make a Secret's files as kubelet does.

    Each file is a link through another link, so that all files change at once.
    """
    (folder / "..made").mkdir(parents=True)
    (folder / "..data").symlink_to("..made")
    for name in [item["path"] for item in secret.get("items", [])] or list(values):
        file = folder / "..made" / name
        file.write_text(values[name])
        file.chmod(secret["defaultMode"])
        os.chown(file, 0, group)
        (folder / name).symlink_to(f"..data/{name}")
    return folder


@contextmanager
def serving(engine: Engine, pod: Manifest, container: Manifest, *options: str) -> Iterator[httpx.Client]:
    """Run a pod's container, and yield a client as soon as its probe succeeds. In the end, it must stop by itself."""
    engine.docker("run", "--detach", "--name=pod", *options, "wxauth", *container["args"])
    address = engine.inspect("pod", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    try:
        with engine.client(f"http://{address}:{container['ports'][0]['containerPort']}", address) as kubelet:
            probe = container.get("startupProbe") or container["livenessProbe"]
            until(lambda: passes(kubelet, probe))
            yield kubelet
        engine.docker("stop", f"--timeout={pod['terminationGracePeriodSeconds']}", "pod")
        assert engine.inspect("pod", "{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false"
    finally:
        engine.docker("rm", "--force", "pod")


def passes(kubelet: httpx.Client, probe: Manifest) -> bool:
    try:
        answer = kubelet.get(probe["httpGet"]["path"], timeout=probe.get("timeoutSeconds", 1))
    except httpx.TransportError:
        return False
    return 200 <= answer.status_code < 400


def test_kubernetes_replica_is_ready_when_the_job_has_migrated(engine: Engine, image: str, network: str) -> None:
    engine.docker("exec", "database", "createdb", "--username=postgres", "kubernetes")
    ways = {}
    for name, template in manifests.pods().items():
        pod = template["spec"]
        (container,), (volume,) = pod["containers"], pod["volumes"]
        values = {**manifests.SECRETS, "wxauth_database_url": f"{SERVER}/kubernetes"}
        folder = engine.shared / "secrets" / name
        files = files_of(volume["secret"], values, pod["securityContext"]["fsGroup"], folder)
        mounted = f"--volume={files}:{container['volumeMounts'][0]['mountPath']}:ro"
        ways[name] = (pod, container, *options_of(pod, container, manifests.config()), mounted, f"--network={network}")
    _, job, *options = ways["migrate"]
    with serving(engine, *ways["serve"]) as kubelet:
        _, container, *_ = ways["serve"]
        assert passes(kubelet, container["livenessProbe"])
        assert not passes(kubelet, container["readinessProbe"])
        engine.docker("run", "--rm", *options, image, *job["args"])
        until(lambda: passes(kubelet, container["readinessProbe"]))


def test_sealos_pod_migrates_and_serves(engine: Engine, image: str, network: str) -> None:
    resolved = manifests.resolved_for_sealos()
    [secret] = [it["stringData"] for it in resolved if it["kind"] == "Secret"]
    [pod] = [it["spec"]["template"]["spec"] for it in resolved if it["kind"] == "Deployment"]
    of_postgres = {"username": "postgres", "password": "secret", "host": "database", "port": "5432"}

    def options(container: Manifest) -> list[str]:
        env = dict(secret)
        for it in container["env"]:
            value = it.get("value") or of_postgres[it["valueFrom"]["secretKeyRef"]["key"]]
            env[it["name"]] = re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], value)
        return [*options_of(pod, container, env), f"--network={network}"]

    for container in pod["initContainers"]:
        engine.docker("run", "--rm", *options(container), image, *container["args"])
    [container] = pod["containers"]
    with serving(engine, pod, container, *options(container)) as kubelet:
        until(lambda: passes(kubelet, container["readinessProbe"]))


def test_1panel_starts_what_its_form_fills_in(engine: Engine, image: str, network: str) -> None:
    [file] = PANEL.glob("*/docker-compose.yml")
    fields = yaml.safe_load((file.parent / "data.yml").read_text())["additionalProperties"]["formFields"]
    assert {field["envKey"] for field in fields if field["required"] and not field["default"]} == set(manifests.ANSWERS)
    given = {field["envKey"]: str(field["default"]) for field in fields} | manifests.OF_PANEL | manifests.ANSWERS
    folder = engine.shared / "1panel"
    folder.mkdir()
    (folder / file.name).write_text(file.read_text())
    (folder / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in given.items()))
    engine.docker("tag", image, IMAGE)
    engine.docker("network", "create", "1panel-network")
    engine.docker("network", "connect", f"--alias={given['PANEL_DB_HOST']}", "1panel-network", "database")
    role = f"CREATE ROLE {given['PANEL_DB_USER']} LOGIN PASSWORD '{given['PANEL_DB_USER_PASSWORD']}'"
    made = f"CREATE DATABASE {given['PANEL_DB_NAME']} OWNER {given['PANEL_DB_USER']}"
    engine.docker("exec", "database", "psql", "--username=postgres", f"--command={role}", f"--command={made}")
    try:
        engine.docker("compose", "up", "--detach", "--wait", folder=folder)
        with engine.client(f"http://127.0.0.1:{given['PANEL_APP_PORT_HTTP']}", "127.0.0.1") as proxy:
            assert proxy.get("/readyz").status_code == 200
    finally:
        engine.docker("compose", "down", folder=folder)
