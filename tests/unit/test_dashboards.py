"""The dashboard and the alert rules name only metrics and labels that exist."""

import json
import re
from pathlib import Path

import pytest
import yaml

from agentstream.consumers.metrics import names

FOLDER = Path(__file__).parents[2] / "infra" / "grafana"
_FUNCTIONS = {"sum", "by", "rate", "increase", "histogram_quantile", "max", "and", "le", "job", "instance"}
_LABELS = {
    "error_type",
    "messaging_destination_partition_id",
    "gen_ai_operation_name",
    "gen_ai_request_model",
    "gen_ai_token_type",
    *(label.replace(".", "_") for label in (names.STATUS, names.HARNESS, names.REASON, names.STATE)),
}


def known() -> set[str]:
    """Every series that a worker's Prometheus page may have."""
    found = {"otel_sdk_exporter_span_exported_total", "otel_sdk_processor_span_processed_total"}
    for metric in names.ALL:
        if metric.kind == "histogram":
            found |= {f"{metric.prometheus}_{part}" for part in ("bucket", "sum", "count")}
        else:
            found.add(metric.prometheus)
    return found


def expressions() -> list[str]:
    """All of both files."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return panels + [rule["expr"] for group in rules for rule in group["rules"]]


def words(expression: str) -> set[str]:
    """The names in an expression: no strings, no durations, no numbers, no variables."""
    bare = re.sub(r'"[^"]*"|\[[^]]*\]|\$\w+', " ", expression)
    return set(re.findall(r"[a-z_][a-z_0-9]*", bare))


@pytest.mark.parametrize("expression", expressions())
def test_every_name_in_an_expression_is_one_that_is_exported(expression: str) -> None:
    assert words(expression) - _FUNCTIONS - _LABELS - known() == set()
    assert words(expression) & known()


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    used = set().union(*map(words, expressions()))
    consumed = "messaging_client_consumed_messages_total"  # its rate is that of the results, in the long run
    missing = [
        metric.name
        for metric in names.ALL
        if not used & {metric.prometheus, f"{metric.prometheus}_bucket", f"{metric.prometheus}_sum"}
        and f"{metric.prometheus}_count" not in used
    ]
    assert missing == [names.CONSUMED.name], consumed


def test_every_alarm_says_what_it_means_and_has_its_place_in_the_handbook() -> None:
    handbook = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"].endswith(".")
            assert rule["alert"] in handbook, rule["alert"]


def test_every_metric_is_in_the_handbook_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for metric in names.ALL:
        assert f"| `{metric.name}` | {metric.kind} | {metric.unit} | {metric.description} |" in page
