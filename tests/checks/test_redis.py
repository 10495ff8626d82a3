"""`wxauth check` asks Redis, and says why Redis does not count logins."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.checks.conftest import BAD, OK, Doctor
from tests.processes import free_port, is_served, until
from tests.programs import needs
from tests.upstream import FakeRedis

pytestmark = pytest.mark.redis

PASSWORD = "hunter2"
"""The doctor makes sure that no line contains it."""


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[dict[str, int]]:
    """The ports of a Redis with this password, of one without a password, and one at which nothing listens."""
    found = {"locked": free_port(), "open": free_port(), "nobody": free_port()}
    with ExitStack() as stack:
        for name, line in (("locked", f"requirepass {PASSWORD}"), ("open", "")):
            configuration = tmp_path / f"{name}.conf"
            configuration.write_text(f'bind 127.0.0.1\nport {found[name]}\nsave ""\n{line}\n')
            command = [needs("redis-server"), str(configuration)]
            server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path))
            stack.callback(server.kill)
            until(lambda name=name: is_served(found[name]))  # type: ignore[misc]
        yield found


async def test_a_redis_that_counts_is_ok_and_without_a_url_none_is_asked(doctor: Doctor, ports: dict[str, int]) -> None:
    assert "redis" not in await doctor()
    await doctor.says("redis", OK, "counts logins", redis_url=f"redis://:{PASSWORD}@127.0.0.1:{ports['locked']}/15")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:wrong-hunter2@127.0.0.1:{locked}/0", "another user name or password (invalid username-password"),
        ("redis://else:hunter2@127.0.0.1:{locked}/0", "another user name or password (invalid username-password"),
        ("redis://127.0.0.1:{locked}/0", "another user name or password (Authentication required"),
        ("redis://:hunter2@127.0.0.1:{open}/0", "another user name or password (AUTH <password> called without"),
        ("redis://:hunter2@127.0.0.1:{locked}/99", "doesn't have this database"),
        ("redis://:hunter2@127.0.0.1:{nobody}/0", "can't be reached"),
        ("redis://:hunter2@nowhere.invalid:6379/0", "can't be reached"),
        ("redis+cluster://:wrong-hunter2@127.0.0.1:{locked}", "invalid username-password"),
        ("redis+cluster://127.0.0.1:{open}", "Cluster mode is not enabled"),
        ("redis+sentinel://127.0.0.1:{open}/mymaster", "unknown command 'SENTINEL'"),
        ("redis+sentinel://:hunter2@127.0.0.1:{nobody}/mymaster", "No master found for 'mymaster'"),
    ],
)
async def test_the_reason_of_a_redis_that_does_not_count_is_told_without_the_password(
    doctor: Doctor, ports: dict[str, int], url: str, reason: str
) -> None:
    results = await doctor(redis_url=url.format(**ports), timeouts={"redis_patience": 10})
    assert (results["redis"].level, reason in results["redis"].text) == (BAD, True), results["redis"].text
    assert "each process counts logins by itself" in results["redis"].text


@pytest.mark.parametrize(
    ("answer", "patience", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 10, "doesn't respond like a Redis server"),
        (None, 10, "doesn't respond like a Redis server"),
        (b"", 0.2, "doesn't respond in time"),
        (b"-READONLY You can't write against a read only replica.\r\n", 10, "rejects the count (You can't write"),
    ],
)
async def test_what_is_no_redis_or_cannot_count_is_told(
    doctor: Doctor, answer: bytes | None, patience: float, reason: str
) -> None:
    async with FakeRedis(answer) as fake:
        url = fake.url.replace("//", f"//:{PASSWORD}@")
        await doctor.says("redis", BAD, reason, redis_url=url, timeouts={"redis_patience": patience})
