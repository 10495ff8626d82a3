"""The command `python -m benchmarks.moving`, which imports and exports users during logins."""

import asyncio
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles
from time import perf_counter

import asyncpg
import click

from wxauth.core.database import Database
from wxauth.core.migrations import migrate
from wxauth.login.login_queries import Login, record_login
from wxauth_desk.postgres import EmbeddedPostgres

APPS = [{"app_id": f"wx000000000000000{n}", "app_secret": "0" * 32} for n in range(2)]
LOGINS_A_SECOND = 20


def person_of(n: int) -> int:
    """Return the person of an identity. One person in four has two identities, with one unionid."""
    return n - 1 if n % 5 == 4 else n


def app_of(n: int) -> str:
    """Return the app of an identity. A person's second identity is in another app."""
    return APPS[n != person_of(n)]["app_id"]


def lines(number: int) -> Iterator[dict[str, str]]:
    """Yield lines with people of a made-up back end."""
    for n in range(number):
        person = person_of(n)
        yield {
            "app_id": app_of(n),
            "openid": f"oGZUI0egBJY1zhBYw2Kh{n:08}",
            "unionid": f"oTmHYjg7xLa9Yp4Zt2Vq{person:08}",
            "external_id": str(10_000_000 + person),
            "nickname": f"用户 {n}",
            "avatar_url": f"https://example.com/avatars/{n}.png",
            "phone": f"+861{person:010}",
            "created_at": "2023-01-02T03:04:05Z",
            "last_login_at": "2026-01-02T03:04:05Z",
        }


class Run:
    """A command in its own process, with its duration and peak memory."""

    def __init__(self, *arguments: str, url: str) -> None:
        self._arguments = arguments
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WXAUTH_")},
            "WXAUTH_DATABASE_URL": url,
            "WXAUTH_SECRET_KEY": "A" * 43 + "=",
            "WXAUTH_APPS": json.dumps(APPS),
        }
        self.seconds = self.peak_mib = 0.0
        self.output = ""

    async def __call__(self) -> "Run":
        await asyncio.to_thread(self._run)
        return self

    def _run(self) -> None:
        began = perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "wxauth", *self._arguments], env=self._env, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        self.output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds, self.peak_mib = perf_counter() - began, usage.ru_maxrss / 1024
        if os.waitstatus_to_exitcode(status) not in (0, 1):  # 1 means that lines were refused
            raise click.ClickException(f"{' '.join(self._arguments)} ended with status {status}")


async def log_in_meanwhile(url: str, number: int, waits: list[float]) -> None:
    """Log in people who are being imported, and record how long each waits."""
    database = Database(url)
    try:
        for n in range(0, 10**9, number // 97):
            login = Login(
                app_id=app_of(n % number),
                openid=f"oGZUI0egBJY1zhBYw2Kh{n % number:08}",
                unionid=f"oTmHYjg7xLa9Yp4Zt2Vq{person_of(n % number):08}",
                nickname=None,
                avatar_url=None,
                session_key=bytes(49),
                ip="192.0.2.1",
                user_agent="micromessenger",
                expires_in=86400,
                may_sign_up=True,
            )
            began = perf_counter()
            await record_login(database, login, now=await database.time())
            waits.append(perf_counter() - began)
            await asyncio.sleep(1 / LOGINS_A_SECOND)
    finally:
        await database.aclose()


async def emptied(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("TRUNCATE users, former_users, consents, events CASCADE")
    await connection.close()


async def measure(url: str, folder: Path, number: int) -> float:
    """Print the durations, and return the import's peak of memory."""
    file, as_csv, out = folder / f"{number}.jsonl", folder / f"{number}.csv", folder / "out.jsonl"
    with file.open("w") as opened:  # not held in memory, because a command's peak would include this process's memory
        opened.writelines(f"{json.dumps(line)}\n" for line in lines(number))
    with as_csv.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(next(lines(1)))
        writer.writerows(line.values() for line in lines(number))
    await emptied(url)
    done = await Run("users", "import", str(file), "--json", url=url)()
    say("import", number, done)
    again = await Run("users", "import", str(file), "--json", url=url)()
    say("the same again", number, again)
    say("the same as CSV", number, await Run("users", "import", str(as_csv), "--json", url=url)())
    say("export", number, await Run("users", "export", str(out), url=url)())

    await emptied(url)
    waits: list[float] = []
    logins = asyncio.create_task(log_in_meanwhile(url, number, waits))
    beside = await Run("users", "import", str(file), "--json", url=url)()
    logins.cancel()
    await asyncio.gather(logins, return_exceptions=True)
    say("import beside logins", number, beside)
    if len(waits) > 1:
        centiles = quantiles(waits, n=100)
        print(
            f"    {len(waits)} logins meanwhile: half within {centiles[49] * 1000:.0f} ms, 99 of 100 within"
            f" {centiles[98] * 1000:.0f} ms, the longest {max(waits) * 1000:.0f} ms"
        )
    return done.peak_mib


def say(what: str, number: int, run: Run) -> None:
    print(
        f"{what}: {number:,} lines in {run.seconds:.1f} s, {number / run.seconds:,.0f} a second,"
        f" {run.peak_mib:.0f} MiB at most  {run.output.strip()}",
        flush=True,
    )


@click.command()
@click.option("--lines", "numbers", type=int, multiple=True, default=(20_000, 200_000), show_default=True)
def main(numbers: tuple[int, ...]) -> None:
    """Measure import and export. The time of a command's start is included."""

    async def run(url: str, folder: Path) -> list[float]:
        database = Database(url)
        await migrate(database)
        await database.aclose()
        return [await measure(url, folder, number) for number in numbers]

    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "postgres", lasting=False) as postgres,
    ):
        peaks = asyncio.run(run(postgres.url(), Path(folder)))
    print(f"memory: {max(peaks) - min(peaks):.0f} MiB between the smallest and the largest file")


if __name__ == "__main__":
    main()
