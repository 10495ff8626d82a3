"""`/metrics` reports counts, times and labels of one worker or several. Workers also add up the console's numbers."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.docs import both_languages, guide, table
from tests.fakes import APP, OTHER_APP, service_env
from tests.metrics import Scraped, scrape
from tests.processes import PATIENCE, WXAUTH, Running, free_port, is_free, is_running, serving, until
from tests.world import Client, Rows, Server, Stage, bearer, set_roles, until_locked
from wxauth import __version__
from wxauth.core.metrics import CountedBlock
from wxauth_desk.wechat import create_simulator

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes under /proc")


LOGIN = {"method": "POST", "route": "/v1/login"}


async def test_logins_are_counted_by_app_and_outcome_and_timed_with_wechat_and_database(stage: Stage) -> None:
    for _ in range(3):
        await stage.login("alice")
    await stage.login("alice", app=OTHER_APP)
    await stage.client.post("/v1/login", json={"code": "nonsense", "app_id": "not-configured"})
    stage.wechat.answers(httpx.ReadTimeout("silence"))
    await stage.client.post("/v1/login", json={"code": "any"})
    stage.wechat.answers(ZeroDivisionError())
    await stage.client.post("/v1/login", json={"code": "any"})
    scraped = await scrape(stage.client)
    assert scraped.counted("wxauth_logins_total", "app_id", "outcome", "errcode") == {
        (APP["app_id"], "new", ""): 1,
        (APP["app_id"], "ok", ""): 2,
        (OTHER_APP["app_id"], "new", ""): 1,
        ("unknown", "unknown_app", ""): 1,
        (APP["app_id"], "wechat_timeout", ""): 1,
        (APP["app_id"], "internal_error", ""): 1,
    }
    assert scraped("wxauth_requests_refused_total", code="internal_error") == 1
    assert scraped("wxauth_requests_total", **LOGIN, status="500") == 1
    assert scraped("wxauth_request_seconds_count", **LOGIN) == 7
    assert scraped("wxauth_request_seconds_bucket", **LOGIN, le="+Inf") == 7
    assert 0 < (scraped("wxauth_request_seconds_sum", **LOGIN) or 0) < 60
    assert scraped("wxauth_wechat_seconds_count") == scraped("wxauth_wechat_seconds_bucket", le="+Inf") == 6
    assert scraped("wxauth_database_seconds_count") == 4
    assert 0 < (scraped("wxauth_database_seconds_sum") or 0) < 10


async def test_a_refusal_of_wechat_is_counted_by_its_errcode(stage: Stage) -> None:
    for errcode in (40029, 40164, 45011, 987654321):
        stage.wechat.answers_errcode(errcode)
        await stage.client.post("/v1/login", json={"code": "any"})
    refused = ["invalid_code", "wechat_misconfigured", "wechat_rate_limited", "wechat_bad_response"]
    scraped = await scrape(stage.client)
    assert scraped.counted("wxauth_logins_total", "outcome", "errcode") == dict.fromkeys(
        zip(refused, ("40029", "40164", "45011", "other"), strict=True), 1
    )
    assert scraped.counted("wxauth_requests_refused_total", "code") == {(code,): 1 for code in refused}


@pytest.mark.parametrize(
    ("ends_with", "outcomes"), [(ZeroDivisionError, ["internal_error"]), (asyncio.CancelledError, [])]
)
def test_a_cancelled_block_has_no_outcome(ends_with: type[BaseException], outcomes: list[str]) -> None:
    counted: list[str] = []
    with suppress(ends_with), CountedBlock(lambda outcome, _: counted.append(outcome)):
        raise ends_with
    assert counted == outcomes


async def test_refreshes_are_counted_by_outcome(stage: Stage) -> None:
    alice = await stage.login()
    for _ in range(2):
        await stage.refresh(alice)
    await stage.client.post("/v1/refresh", json={"refresh_token": "forged"})
    scraped = await scrape(stage.client)
    assert scraped("wxauth_refreshes_total", outcome="ok") == 2
    assert scraped("wxauth_refreshes_total", outcome="invalid_refresh_token") == 1


async def test_requests_are_counted_by_method_route_and_status_and_refused_ones_by_code(stage: Stage) -> None:
    tokens = await stage.login()
    for session_id in (tokens["session_id"], "not-a-session"):
        await stage.client.delete(f"/v1/me/sessions/{session_id}", headers=bearer(tokens))
    for method, path in (("GET", "/v1/me/nothing"), ("GET", "/v1/login"), ("HEAD", "/livez"), ("GET", "/v1/me")):
        await stage.client.request(method, path)
    for method in ("BREW", "PROPFIND"):
        await stage.client.request(method, "/v1/login")
        await stage.client.request(method, "/nothing")
    scraped = await scrape(stage.client)
    assert scraped.counted("wxauth_requests_total", "method", "route", "status") == {
        ("POST", "/v1/login", "200"): 1,
        ("DELETE", "/v1/me/sessions/{session_id}", "204"): 1,
        ("DELETE", "/v1/me/sessions/{session_id}", "401"): 1,  # the first request has ended its own session
        ("GET", "none", "404"): 1,
        ("GET", "/v1/login", "405"): 1,
        ("GET", "/v1/me", "401"): 1,
        ("HEAD", "/livez", "200"): 1,
        ("other", "/v1/login", "405"): 2,
        ("other", "none", "404"): 2,
    }
    assert scraped.counted("wxauth_requests_refused_total", "code") == {
        ("invalid_token",): 1,
        ("missing_token",): 1,
        ("not_found",): 3,
        ("method_not_allowed",): 3,
    }


@pytest.mark.no_database
async def test_series_exist_before_the_first_count_and_without_a_database(client: Client) -> None:
    scraped = await scrape(client)
    assert scraped("wxauth_logins_total", app_id=APP["app_id"], outcome="ok") == 0
    assert scraped("wxauth_logins_total", app_id=OTHER_APP["app_id"], outcome="new") == 0
    for fault in ("internal_error", "storage_unavailable", "wechat_unavailable", "wechat_timeout"):
        assert scraped("wxauth_logins_total", app_id=OTHER_APP["app_id"], outcome=fault) == 0
    assert scraped("wxauth_refreshes_total", outcome="ok") == 0
    assert scraped("wxauth_refreshes_total", outcome="storage_unavailable") == 0
    assert scraped("wxauth_wechat_calls_total", api="code2session", outcome="wechat_timeout") == 0
    for status in ("200", "500", "503"):
        assert scraped("wxauth_requests_total", method="POST", route="/v1/login", status=status) == 0
    assert scraped("wxauth_requests_total", method="POST", route="/v1/logout", status="204") == 0
    assert scraped("wxauth_build_info", version=__version__) == 1
    assert scraped("wxauth_sessions") is scraped("wxauth_signing_key_age_seconds") is None, "which a database has"


async def test_open_sessions_are_counted(stage: Stage) -> None:
    assert (await scrape(stage.client))("wxauth_sessions") == 0
    tokens = [(await stage.login("alice"))["refresh_token"] for _ in range(3)]
    await stage.client.post("/v1/logout", json={"refresh_token": tokens[0]})
    assert (await scrape(stage.client))("wxauth_sessions") == 0, "what was read a moment ago is good enough"
    stage.clock.advance(seconds=15)
    assert (await scrape(stage.client))("wxauth_sessions") == 2
    stage.clock.advance(days=30)
    assert (await scrape(stage.client))("wxauth_sessions") == 0


@pytest.mark.slow
@pytest.mark.own_database  # it is so large that later tests would get estimates
async def test_many_sessions_are_estimated(stage: Stage) -> None:
    await stage.login()
    await stage.rows.execute("""
        INSERT INTO sessions (id, user_id, app_id, openid, user_agent, created_at, last_used_at, expires_at)
        SELECT gen_random_uuid(), user_id, app_id, openid, repeat('x', 500), created_at, last_used_at, expires_at
          FROM sessions, generate_series(1, 100000)""")
    reported = (await scrape(stage.client))("wxauth_sessions")
    assert reported != 100_001
    assert reported == pytest.approx(100_001, rel=0.1)


@pytest.mark.no_signing_key
async def test_the_age_of_the_signing_key_is_a_metric(stage: Stage) -> None:
    stage.clock.advance(hours=1)
    assert (await scrape(stage.client))("wxauth_signing_key_age_seconds") == 3600
    stage.clock.advance(seconds=10)
    assert (await scrape(stage.client))("wxauth_signing_key_age_seconds") == 3610


@pytest.mark.no_signing_key
async def test_an_age_keeps_growing_while_another_scrape_reads_it_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wxauth.service.metrics.STATISTICS_PATIENCE_SECONDS", PATIENCE)
    stage.clock.advance(hours=1)
    assert (await scrape(stage.client))("wxauth_signing_key_age_seconds") == 3600
    stage.clock.advance(seconds=15)
    async with stage.rows.transaction():
        await stage.rows.execute("LOCK TABLE signing_keys")
        reading = asyncio.create_task(scrape(stage.client))
        await until_locked(stage.rows)
        stage.clock.advance(seconds=5)
        assert (await scrape(stage.client))("wxauth_signing_key_age_seconds") == 3620
    assert (await reading)("wxauth_signing_key_age_seconds") == 3620
    stage.clock.advance(seconds=10)
    assert (await scrape(stage.client))("wxauth_signing_key_age_seconds") == 3630


async def test_no_label_identifies_a_person(stage: Stage) -> None:
    user = (await stage.login("alice"))["user"]
    for word in ("a", "b", "c"):
        await stage.client.post("/v1/login", json={"code": stage.wechat.code_for(word), "app_id": word})
        await stage.client.get(f"/{word}")
    scraped = await scrape(stage.client)
    assert {name for sample in scraped.samples for name in sample.labels} == {
        *("app_id", "outcome", "errcode", "code", "le", "version", "api", "method", "route", "status", "worker"),
        "by",
        "door",
        "statement",
    }
    assert {sample.labels.get("app_id") for sample in scraped.samples} == {
        *(APP["app_id"], OTHER_APP["app_id"], "unknown", None)
    }
    values = "\n".join(value for sample in scraped.samples for value in sample.labels.values())
    assert not [word for word in ("alice", user["id"], user["openid"]) if word in values]


@pytest.mark.no_signing_key  # its age would be unknown
@both_languages
async def test_the_table_of_metrics_has_every_metric_with_its_labels(client: Client, language: str) -> None:
    rows = table(guide("monitoring", language), "metric|指标")
    shown = {name: set(re.findall(r"`(\w+)`", labels)) for names, labels, _ in rows for name in names.split("`")[1::2]}
    text = (await client.get("/metrics")).text
    reported = {name: set[str]() for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)}
    assert shown.keys() == reported.keys()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:  # rare metrics have no samples yet
            name = next(name for name in (family.name, f"{family.name}_total") if name in reported)
            assert shown[name] == sample.labels.keys() - {"le"}, name  # every histogram has "le"


# A service with several workers.


class TwoWorkers(Server):
    """A running `wxauth serve` with two workers. Each request uses a new connection."""

    def log_in_often(self, times: int) -> None:
        for _ in range(times):
            self.log_in("alice", Connection="close")

    def scrape(self) -> Scraped:
        return Scraped(self.client.get("/metrics", headers={"Connection": "close"}))

    def folder(self) -> Path:
        """Return the folder in which the workers store their counts."""
        worker = next(iter(self.workers()))
        variables = Path(f"/proc/{worker}/environ").read_text().split("\0")
        return Path(next(it for it in variables if it.startswith("PROMETHEUS_MULTIPROC_DIR=")).partition("=")[2])


@pytest.fixture
def service(tmp_path: Path, database_url: str) -> Iterator[TwoWorkers]:
    with two_workers(tmp_path, database_url) as running:
        yield running


@contextmanager
def two_workers(folder: Path, database_url: str) -> Iterator[TwoWorkers]:
    port = free_port()
    with serving(create_simulator()) as wechat_url:
        env = service_env(database_url, wechat_base_url=wechat_url, port=port, workers=2)
        with Running(WXAUTH, "serve", cwd=folder, env=env) as command:
            running = TwoWorkers(command, port)
            until(lambda: running.has_started == 2)
            with running.client:
                yield running


def values_of_workers(service: TwoWorkers, name: str, **labels: str) -> list[float | None]:
    """Return the value of a metric from each worker."""
    values = []
    for worker in service.workers():
        with service.only(worker):
            values.append(service.scrape()(name, **labels))
    return values


@on_linux
@pytest.mark.process
def test_every_worker_reports_the_counts_of_all_workers_even_of_a_dead_worker(service: TwoWorkers) -> None:
    for worker in service.workers():
        with service.only(worker):
            service.log_in_often(10)
    assert values_of_workers(service, "wxauth_logins_total") == [20, 20]
    assert values_of_workers(service, "wxauth_wechat_seconds_count") == [20, 20]
    files = sorted(path.name for path in service.folder().iterdir())

    for worker in service.workers():
        os.kill(worker, signal.SIGKILL)
    until(lambda: service.has_started == 4)
    service.log_in_often(10)
    assert values_of_workers(service, "wxauth_logins_total") == [30, 30]
    assert values_of_workers(service, "wxauth_wechat_seconds_bucket", le="+Inf") == [30, 30]
    assert values_of_workers(service, "wxauth_build_info") == [1, 1]
    assert sorted(path.name for path in service.folder().iterdir()) == files


@on_linux
@pytest.mark.process
async def test_the_consoles_days_have_the_logins_of_workers_even_of_a_dead_one(service: TwoWorkers, rows: Rows) -> None:
    root = service.log_in("root", Connection="close")
    await set_roles(rows, "admin", user_id=root["user"]["id"])

    def logins() -> int:
        """Return the number of logins that a worker reports. The worker first stores the logins that it has counted."""
        headers = {**bearer(root), "Connection": "close"}
        answer = service.client.get("/v1/admin/numbers", params={"days": 2}, headers=headers)
        return sum(day["logins"] for day in answer.json()["days"])

    for number in (3, 4):
        for worker in service.workers():
            with service.only(worker):
                service.log_in_often(10)
                logins()
        os.kill(worker, signal.SIGKILL)
        until(lambda: service.has_started == number)  # noqa: B023 - called at once
    for worker in service.workers():
        with service.only(worker):
            service.log_in_often(10)
            logins()
    assert logins() == 1 + 3 * 20


@on_linux
@pytest.mark.process
def test_every_worker_reports_the_usage_of_each_and_a_successor_counts_from_zero(service: TwoWorkers) -> None:
    def usage(name: str) -> dict[str, float]:
        return {s.labels["worker"]: s.value for s in service.scrape().samples if s.name == f"process_{name}"}

    for _ in range(6):
        for name in ("resident_memory_bytes", "cpu_seconds_total", "open_fds"):
            reported = usage(name)
            assert reported.keys() == {"0", "1", "supervisor"}
            # Linux counts CPU time in steps of 10 ms, and a worker that has just started has used less.
            assert all(value > 0 or name == "cpu_seconds_total" for value in reported.values())
    before = {*usage("start_time_seconds").values()}
    assert time.time() - 600 < min(before) <= max(before) <= time.time() + 1
    dead, other = service.workers()
    os.kill(dead, signal.SIGSEGV)
    until(lambda: service.has_started == 3)
    (ended,) = (json.loads(line) for line in service.command.output.splitlines() if "worker_ended" in line)
    assert (ended["level"], ended["pid"], ended["status"]) == ("warning", dead, -signal.SIGSEGV)
    assert service.workers() > {other}
    assert len({*usage("start_time_seconds").values()} - before) == 1


@on_linux
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.process
def test_the_workers_shared_counts_are_deleted_at_the_end(service: TwoWorkers, ending: int) -> None:
    folder, workers = service.folder(), service.workers()
    assert folder.is_dir()
    service.command.end(ending)
    until(lambda: not any(is_running(worker) for worker in workers))
    assert is_free(service.port)
    assert not folder.exists()


async def test_the_routes_of_a_login_page_have_one_template(client: Client) -> None:
    answers = {"state": 404, "next": 404, "cancel": 404, "wechat": 404, "wechat/again": 200}
    for path, status in answers.items():
        assert (await client.get(f"/v1/authorize/{'r' * 22}/{path}")).status_code == status
    scraped = await scrape(client)
    for path, status in answers.items():
        route = "/v1/authorize/{request_id}/" + path.replace("again", "{name}")
        assert scraped("wxauth_requests_total", method="GET", route=route, status=str(status)) == 1, path
