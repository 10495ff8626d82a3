"""Fixtures for two replicas as processes, which are restarted in turn while people log in through a proxy."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from tests.fakes import service_env
from tests.processes import WXAUTH, Running, free_port, serving, until
from tests.world import bearer
from wxauth_desk.wechat import create_simulator

PEOPLE = 6


@dataclass(frozen=True)
class Replicas:
    """Two replicas as processes."""

    addresses: list[str]
    running: list[Running]
    start: Callable[[int], Running]
    """Start this replica again, and wait until it serves."""


@pytest.fixture
def replicas(tmp_path: Path, database_url: str) -> Iterator[Replicas]:
    with ExitStack() as stack:
        wechat_url = stack.enter_context(serving(create_simulator()))
        ports = (free_port(), free_port())

        def start(number: int) -> Running:
            env = service_env(
                database_url,
                wechat_base_url=wechat_url,
                login_rate_limit="1000000/minute",
                port=ports[number],
                trusted_proxies="127.0.0.1",
            )
            replica = stack.enter_context(Running(WXAUTH, "serve", cwd=tmp_path, env=env))
            replica.wait_for('"started"')
            return replica

        yield Replicas([f"127.0.0.1:{port}" for port in ports], [start(number) for number in range(len(ports))], start)


def restart_in_turn(replicas: Replicas, client: Callable[[], httpx.Client]) -> Counter[str]:
    """Restart both replicas while people use the service, and return how often each status or failure was seen."""
    with people_at_work(client) as seen:
        for number, replica in enumerate(replicas.running):
            until(lambda: seen["200"] > 50 * (number + 1))  # noqa: B023 - done within the turn
            assert replica.end(signal.SIGTERM) == 0
            so_far = seen.total()
            until(lambda: seen.total() > so_far + 50)  # noqa: B023 - the other replica serves
            replicas.start(number).wait_for('"logged_in"')  # the proxy has noticed that the replica is back
    return seen


@contextmanager
def people_at_work(client: Callable[[], httpx.Client]) -> Iterator[Counter[str]]:
    """Let people use the service during the block, and count how often each status or failure was seen."""
    seen: Counter[str] = Counter()
    is_over = Event()

    def use(person: int) -> None:
        with client() as it:

            def ask(method: str, path: str, **options: Any) -> dict[str, Any]:
                answer = it.request(method, path, **options)
                seen[str(answer.status_code)] += 1
                return answer.raise_for_status().json()

            while not is_over.wait(0.2):  # a shorter pause would not prove more
                try:
                    login = ask("POST", "/v1/login", json={"code": f"person-{person}"})
                    again = ask("POST", "/v1/refresh", json={"refresh_token": login["refresh_token"]})
                    ask("GET", "/v1/me", headers=bearer(again))
                except httpx.HTTPStatusError:
                    pass  # `ask` has counted it by its status
                except httpx.HTTPError as exc:
                    seen[repr(exc)] += 1

    people = [Thread(target=use, args=(person,)) for person in range(PEOPLE)]
    for thread in people:
        thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        for thread in people:
            thread.join()
