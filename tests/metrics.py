"""Reads the response of `/metrics`."""

import re
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Scraped:
    """A response of /metrics. `scraped("wxauth_logins_total", outcome="ok")` adds up the matching samples."""

    def __init__(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        self.samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float | None:
        fitting = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        return sum(fitting) if fitting else None

    def counted(self, name: str, *by: str, **labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of the samples with these labels, by the values of the labels in `by`."""
        fitting = [s for s in self.samples if s.name == name and s.value and labels.items() <= s.labels.items()]
        counts = {tuple(s.labels[it] for it in by): s.value for s in fitting}
        assert len(counts) == len(fitting), "these labels do not tell all samples apart"
        return counts


async def scrape(client: httpx.AsyncClient) -> Scraped:
    return Scraped(await client.get("/metrics"))


async def misconfigured(client: httpx.AsyncClient) -> float:
    """Return the value that the shipped alert watches, which counts WeChat's rejections of wxauth's configuration."""
    rules = (Path(__file__).parents[1] / "deploy" / "prometheus" / "alerts.yml").read_text()
    found = re.search(r'alert: WxauthMisconfigured\n *expr: increase\((\w+)\{code="(\w+)"\}', rules)
    assert found is not None
    return (await scrape(client))(found[1], code=found[2]) or 0
