"""The whole of it for programs and notebooks.

report = await make_report(Sources(recording="may", baseline=Recorded(), candidate=ReplayAnswers.open(path)),
                           RecordingReader.open(recording), evaluators=["exact", "latency"],
                           fail_if=["pass_rate(exact) < baseline - 0.02 at 95%"], out=Path("report"))
report.verdict.state, report.summaries
report.write_files()
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import JsonValue, TypeAdapter

from agentstream.consumers.replay.comparing.answers import NamedEvaluator
from agentstream.consumers.replay.comparing.comparison import Comparison, Sources, compare, read_comparison
from agentstream.consumers.replay.comparing.html import write_html
from agentstream.consumers.replay.comparing.junit import write_junit
from agentstream.consumers.replay.comparing.records import evaluation_results
from agentstream.consumers.replay.comparing.rules import Rule, parse_rule
from agentstream.consumers.replay.comparing.specs import make_evaluators
from agentstream.consumers.replay.comparing.summary import EvaluatorSummary, summarize
from agentstream.consumers.replay.comparing.terminal import remarks, verdict_lines
from agentstream.consumers.replay.comparing.verdict import MAX_LEFT_OUT, Verdict, check_rules, judge_rules
from agentstream.schemas.evaluations import EvaluationResult
from agentstream.schemas.recordings import RecordedRun

EVIDENCE: Final = "evidence.jsonl"
_JSON: Final[TypeAdapter[JsonValue]] = TypeAdapter(JsonValue)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A comparison that was made, and all that is made of its evidence."""

    evidence: Path
    """The evidence file."""
    comparison: Comparison
    """What it holds."""
    summaries: tuple[EvaluatorSummary, ...]
    """What got better and worse, by evaluator."""
    verdict: Verdict
    """What the rules say; passed where there are none."""

    def lines(self) -> Iterator[str]:
        """What stands below the table, and the verdict."""
        yield from remarks(self.comparison, self.summaries)
        yield from verdict_lines(self.verdict)

    def write_html(self, path: Path) -> None:
        """The page for a browser."""
        write_html(path, self.evidence, self.comparison, self.summaries, self.verdict)

    def write_junit(self, path: Path) -> None:
        """The XML for CI."""
        write_junit(path, self.evidence, self.summaries, self.verdict)

    def write_files(self) -> None:
        """What `compare --out` leaves, beside the evidence: report.html, junit.xml and report.json. Raises OSError."""
        directory = self.evidence.parent
        self.write_html(directory / "report.html")
        self.write_junit(directory / "junit.xml")
        text = json.dumps(self.document(), ensure_ascii=False, indent=2)
        (directory / "report.json").write_text(f"{text}\n", encoding="utf-8")

    def results(self) -> Iterator[EvaluationResult]:
        """The outcomes as the topic of evaluations has them."""
        return evaluation_results(self.evidence)

    def document(self) -> JsonValue:
        """Everything but the texts, as JSON."""
        return _JSON.validate_json(_JSON_OUT.dump_json(self._parts()))

    def _parts(self) -> dict[str, object]:
        return {
            "comparison": self.comparison.about.model_dump(mode="json", exclude_none=True),
            "evidence": str(self.evidence),
            "evaluators": [
                {**asdict(one), "evaluator": one.evaluator.model_dump(mode="json", exclude_none=True)}
                for one in self.summaries
            ],
            "missing": len(self.comparison.missing),
            "diverged": list(self.comparison.diverged),
            "verdict": {"state": self.verdict.state, "exit_code": self.verdict.exit_code, **asdict(self.verdict)},
        }


_JSON_OUT: Final[TypeAdapter[object]] = TypeAdapter(object)


async def make_report(  # noqa: PLR0913  # each says another thing of what is wanted
    sources: Sources,
    cases: Iterable[RecordedRun],
    *,
    evaluators: Sequence[str | NamedEvaluator] = (),
    fail_if: Sequence[str] = (),
    out: Path,
    max_left_out: float = MAX_LEFT_OUT,
    judge_model: str | None = None,
) -> Report:
    """Compare, and judge by the rules. The evidence is written to `out`/evidence.jsonl; `Report.write_files`
    puts the page, the XML and the JSON beside it, as `compare --out` does.

    `evaluators`: as for `--eval`, or made by oneself. Rules and evaluators are read before any case is. Raises
    ComparisonError for what cannot be read or compared, and RecordingError for a damaged recording.
    """
    rules = [parse_rule(text) for text in fail_if]
    made = make_evaluators([one for one in evaluators if isinstance(one, str)], judge_model=judge_model)
    own = [one for one in evaluators if isinstance(one, NamedEvaluator)]
    if own and not any(isinstance(one, str) for one in evaluators):
        made = tuple(one for one in made if one.name == "errors")
    chosen = (*own, *made)
    check_rules(chosen, rules)
    evidence = await compare(cases, sources, chosen, into=out / EVIDENCE)
    return report_of(evidence, rules, max_left_out=max_left_out)


def report_of(evidence: Path, rules: Sequence[Rule], *, max_left_out: float = MAX_LEFT_OUT) -> Report:
    """The report that is in an evidence file, perhaps under other rules. Raises ComparisonError."""
    comparison = read_comparison(evidence)
    verdict = judge_rules(comparison, rules, max_left_out=max_left_out)
    return Report(evidence=evidence, comparison=comparison, summaries=summarize(comparison), verdict=verdict)
