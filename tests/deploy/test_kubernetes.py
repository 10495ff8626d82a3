"""The output of kustomize for `deploy/kubernetes` fits the schemas of Kubernetes and the needs of the service."""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import validate

from tests.deploy.manifests import FOLDER, built, config, one, pods
from wxauth.settings.settings import PREFIX

pytestmark = pytest.mark.operations


@pytest.mark.parametrize("version", ["1.25", "1.31", kubernetes_validate.latest_version()])
def test_each_manifest_is_valid_for_kubernetes(version: str) -> None:
    assert len(built()) == 10
    for manifest in built():
        validate(manifest, version, strict=True)


def selected(selector: Mapping[str, str]) -> set[str]:
    return {name for name, pod in pods().items() if selector.items() <= pod["metadata"]["labels"].items()}


def test_each_selector_finds_the_pods_that_it_means() -> None:
    assert selected(one("Service")["spec"]["selector"]) == {"serve"}
    assert selected(one("Service", "wxauth-nobody")["spec"]["selector"]) == set()
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert selected(one(kind)["spec"]["selector"]["matchLabels"]) == {"serve"}
    for name, found in (("wxauth", "serve"), ("wxauth-migrate", "migrate")):
        assert selected(one("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"]) == {found}


def test_a_replica_serves_while_others_are_replaced_or_moved() -> None:
    deployment = one("Deployment")["spec"]
    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert one("PodDisruptionBudget")["spec"]["maxUnavailable"] < deployment["replicas"]


def test_paths_for_operators_are_not_routed_from_outside() -> None:
    (rule,) = one("Ingress")["spec"]["rules"]
    routed = {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
    assert routed == {"/": "wxauth", "/metrics": "wxauth-nobody", "/readyz": "wxauth-nobody"}


def test_a_gateway_routes_what_the_ingress_routes() -> None:
    (route,) = (
        manifest["spec"]
        for manifest in yaml.safe_load_all((FOLDER / "gateway.yaml").read_text())
        if manifest["kind"] == "HTTPRoute" and manifest["metadata"]["name"] == "wxauth"
    )
    (ingress,) = one("Ingress")["spec"]["rules"]
    routed = {match["path"]["value"]: rule["backendRefs"] for rule in route["rules"] for match in rule["matches"]}
    assert route["hostnames"] == [ingress["host"]]
    assert routed == {
        path["path"]: [{"name": path["backend"]["service"]["name"], "port": one("Service")["spec"]["ports"][0]["port"]}]
        for path in ingress["http"]["paths"]
    }


def test_no_other_pod_names_the_client() -> None:
    assert ip_address("10.244.3.7") not in ip_network(config()[f"{PREFIX}TRUSTED_PROXIES"])


def test_only_the_ingress_controllers_pods_come_in_from_its_namespace() -> None:
    (rule,) = one("NetworkPolicy")["spec"]["ingress"]
    namespace = "kubernetes.io/metadata.name"
    peers = {peer["namespaceSelector"]["matchLabels"].get(namespace): peer for peer in rule["from"]}
    controllers = {
        "haproxy-controller": {"app.kubernetes.io/name": "kubernetes-ingress"},
        "envoy-gateway-system": {"app.kubernetes.io/component": "proxy"},
        "ingress-nginx": {"app.kubernetes.io/component": "controller"},
    }
    assert {name: peers[name]["podSelector"]["matchLabels"] for name in controllers} == controllers


def test_pods_have_no_rights_that_they_do_not_need_nor_secrets_where_kubernetes_puts_its_own() -> None:
    for pod in pods().values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001  # the user of the image
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            for mount in container["volumeMounts"]:
                assert not mount["mountPath"].startswith(("/run/secrets", "/var/run"))


def test_the_migration_reaches_the_database_and_nobody_reaches_the_migration() -> None:
    policy = one("NetworkPolicy", "wxauth-migrate")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 5432}
