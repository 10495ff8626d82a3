"""Prometheus accepts `deploy/prometheus` and `deploy/grafana` with the metrics of a running service."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.docs import both_languages, guide
from tests.fakes import service_env
from tests.processes import PATIENCE, WXAUTH, Running, free_port, serving, until
from tests.programs import needs, output_of
from wxauth_desk.wechat import create_simulator

pytestmark = pytest.mark.operations

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/wxauth.json").read_text())
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
VARIABLES = {"$job": "wxauth", "$instance": ".*", "$__rate_interval": "30s"}
"""The variables that Grafana replaces."""
SELDOM = (
    "wxauth_access_token_reads_total",
    "wxauth_writes_awaiting_retry",
    "wxauth_webhook_deliveries_total",
)
"""The metrics of events that do not happen in these tests."""
HOW_QUICK = re.compile(r"_seconds_bucket\b|\bup\b")
"""A pattern of the alerts about slow responses. The tests allow them, because a busy machine can cause them."""


def promtool(*arguments: str | Path) -> str:
    return output_of(needs("promtool"), *arguments, cwd=RULES.parent)


def test_the_configuration_and_the_rules_are_valid_for_prometheus() -> None:
    promtool("check", "config", "--lint=all", "--lint-fatal", "prometheus.yml")


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", "alerts_test.yml")
    tested = re.findall(r"alertname: (\w+)", (RULES.parent / "alerts_test.yml").read_text())
    assert {rule["alert"] for rule in ALERTS} == set(tested)


def test_each_alert_has_a_severity_and_a_description() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}


@both_languages
def test_the_guide_has_a_response_to_each_alert(language: str) -> None:
    documented = re.findall(r"^\| `(Wxauth\w+)` \| \S", guide("monitoring", language).read_text(), re.MULTILINE)
    assert documented == [rule["alert"] for rule in ALERTS]


# Tests with a service that is in use.


@pytest.fixture
def prometheus(tmp_path: Path, database_url: str) -> Iterator[str]:
    """Run Prometheus with our configuration, scrape a service in use each second, and return the URL of Prometheus."""
    program = needs("prometheus")
    port, own_port = free_port(), free_port()
    for name in ("prometheus.yml", "alerts.yml"):
        text = (RULES.parent / name).read_text()
        (tmp_path / name).write_text(text.replace('8001", "127.0.0.1:8002', str(port)).replace(": 15s", ": 1s"))
    command = (
        program,
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{own_port}",
    )
    with serving(create_simulator()) as wechat_url:
        # Until Prometheus has scraped the service twice, the tests send it requests without pauses.
        env = service_env(database_url, wechat_base_url=wechat_url, port=port, login_rate_limit="1000000/minute")
        with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as service, Running(*command, cwd=tmp_path) as scraping:
            service.wait_for('"started"')
            scraping.wait_for("Server is ready to receive web requests")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, verify=False) as client:

                def is_seen() -> bool:
                    client.post("/v1/login", json={"code": "bob"})
                    tokens = client.post("/v1/login", json={"code": "alice"}).json()
                    client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
                    client.post("/v1/login", json={"code": "errcode-40029"})
                    return bool(ask(url, 'rate(wxauth_logins_total{outcome="invalid_code"}[30s]) > 0'))

                url = f"http://127.0.0.1:{own_port}"
                until(is_seen)
                yield url
    shutil.rmtree(tmp_path / "data")


def ask(url: str, query: str) -> list[Any]:
    """Return the results of a Prometheus query."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=PATIENCE, verify=False)
    assert answer.status_code == 200, f"{query}: {answer.text}"
    return answer.json()["data"]["result"]


def test_every_panel_has_something_to_show_and_no_alert_fires(prometheus: str) -> None:
    without = []
    for panel in DASHBOARD["panels"]:
        for query in (target["expr"] for target in panel.get("targets", ())):
            for variable, value in VARIABLES.items():
                query = query.replace(variable, value)
            assert "$" not in query
            if not ask(prometheus, query) and not any(name in query for name in SELDOM):
                without.append(panel["title"])
    assert without == []
    names = {name["__name__"] for name in (entry["metric"] for entry in ask(prometheus, '{job="wxauth"}'))}
    for rule in ALERTS:
        named = set(re.findall(r"\b(?:wxauth|process)_\w+|\bup\b", rule["expr"]))
        assert named <= names | set(SELDOM), rule["alert"]
        assert ask(prometheus, rule["expr"]) == [] or HOW_QUICK.search(rule["expr"]), rule["alert"]


@pytest.mark.no_database
async def test_a_rare_metric_exists_all_the_same(client: httpx.AsyncClient) -> None:
    families = re.findall(r"^# TYPE (\w+)", (await client.get("/metrics")).text, re.MULTILINE)
    assert set(SELDOM) <= set(families)
