"""The table of metrics in docs/monitoring.md is that of `/metrics`."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.docs import DOCS, both_languages, table
from tests.world import Client

BY_PROMETHEUS = {"le"}
"""The label of a histogram's buckets, which goes without saying."""


@pytest.mark.no_signing_key  # whose age would not be known
@both_languages
async def test_the_table_of_metrics_has_every_metric_with_its_labels_and_no_other(
    client: Client, language: str
) -> None:
    rows = table(DOCS / f"monitoring{language}.md", "metric|指标")
    shown = {name: set(re.findall(r"`(\w+)`", labels)) for names, labels, _ in rows for name in names.split("`")[1::2]}
    text = (await client.get("/metrics")).text
    reported = {name: set[str]() for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)}
    assert shown.keys() == reported.keys()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:  # rare metrics have no samples yet
            name = next(name for name in (family.name, f"{family.name}_total") if name in reported)
            assert shown[name] == sample.labels.keys() - BY_PROMETHEUS, name
