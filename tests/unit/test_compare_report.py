"""What a comparison leaves: the evidence, the page, the XML, spans, records."""

import json
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree.ElementTree import parse

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id

from agentstream.consumers.replay.comparing.answers import ComparisonError
from agentstream.consumers.replay.comparing.comparison import Sources, compare
from agentstream.consumers.replay.comparing.differences import word_diff
from agentstream.consumers.replay.comparing.report import Report, report_of
from agentstream.consumers.replay.comparing.rules import parse_rule
from agentstream.consumers.replay.comparing.sides import Recorded, ReplayAnswers
from agentstream.consumers.replay.comparing.spans import trace_evaluations
from agentstream.consumers.replay.comparing.terminal import COLUMNS, table_rows
from agentstream.consumers.tracing.ids import span_id_of
from agentstream.schemas.recordings import RecordedRun, ReplayedRun
from tests.support.comparisons import BEGAN, case, given, report, result

EVIL = '</script><script>alert("1")</script><img src=x onerror=alert(2)> \x07 & \udcff'
RULES = ["pass_rate(exact) < baseline - 0.02 at 95%", "mean(tokens) > baseline", "pass_rate(exact) < 0.1"]


class Tags(HTMLParser):
    """Which tags a page really has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.events: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.events += [name for name, _ in attrs if name.startswith("on") or name == "src"]


async def twenty(tmp_path: Path, wrong: str = EVIL) -> Report:
    """Twenty cases, of which every fourth is answered wrongly."""
    cases = [case(f"r{n}", result("right", tokens=(n, 1)), question=EVIL) for n in range(20)]
    answers = {f"r{n}": [result("right" if n % 4 else wrong, tokens=(n, 1))] for n in range(20)}
    return await report(cases, given(answers, EVIL), out=tmp_path, evaluators=["exact", "tokens"], fail_if=RULES)


async def test_the_table_says_what_got_better_and_worse(tmp_path: Path) -> None:
    made = await twenty(tmp_path)
    rows = {row[0]: row for row in table_rows(made.summaries)}
    assert rows["exact"][1:3] == ("100.0% [83.9%, 100.0%]", "75.0% [53.1%, 88.8%]")
    assert rows["exact"][4:7] == ("0", "5", "20")
    assert rows["exact"][3].startswith("-25.0%")
    assert "exact worse: r0, r4, r8, r12, r16" in list(made.lines())


async def test_one_session_gives_no_interval_and_the_json_stays_json(tmp_path: Path) -> None:
    cases = [case(f"r{n}", result("right", seconds=n), session="the same") for n in range(3)]
    made = await report(cases, given({"r0": [result("no")], "r2": [result("right")]}), out=tmp_path, fail_if=RULES[:1])
    assert "[?, ?]" in table_rows(made.summaries)[0][3]
    assert json.loads(json.dumps(made.document(), allow_nan=False))["missing"] == 1
    assert made.verdict.state == "not_judged"
    assert "1 case without candidate: candidate has no result of it" in list(made.lines())


async def test_a_data_set_without_recorded_answers_is_judged_by_what_it_expects(tmp_path: Path) -> None:
    cases = [case(f"r{n}", expected="right") for n in range(10)]
    answers = given({f"r{n}": [result("right" if n else "wrong")] for n in range(10)})
    rules = ["pass_rate(exact) < 0.95", "pass_rate(exact) < 0.5 at 95%", "pass_rate(exact) < baseline"]
    made = await report(cases, answers, out=tmp_path, fail_if=rules)
    assert [one.state for one in made.verdict.rules] == ["failed", "passed", "not_judged"]
    assert table_rows(made.summaries)[0][1:3] == ("–", "90.0% [59.6%, 98.2%]")
    made.write_junit(tmp_path / "junit.xml")
    suite = next(one for one in parse(tmp_path / "junit.xml").getroot() if one.get("name") == "exact")
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "0")


async def test_nothing_that_an_agent_says_becomes_markup(tmp_path: Path) -> None:
    made = await twenty(tmp_path)
    made.write_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert tags.found.count("script") == 1
    assert "img" not in tags.found
    assert tags.events == []
    assert "&lt;script&gt;" in page
    # Nothing is fetched: no address but those of namespaces stands in it.
    assert re.findall(r"https?://|@import|url\(", page) == []


async def test_the_page_shows_what_changed_first_and_says_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstream.consumers.replay.comparing.html.MOST_CASES", 6)
    made = await twenty(tmp_path, "wrong")
    made.write_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = re.findall(r"<header><b>(r\d+)</b>", page)
    assert shown[:5] == ["r0", "r4", "r8", "r12", "r16"]
    assert (len(shown), "The other 14 are in the evidence" in page) == (6, True)
    assert "<del>right</del>" in page
    assert "<ins>wrong</ins>" in page


async def test_junit_fails_what_got_worse_and_the_rules_that_failed(tmp_path: Path) -> None:
    made = await twenty(tmp_path)
    made.write_junit(tmp_path / "junit.xml")
    suites = {suite.get("name"): suite for suite in parse(tmp_path / "junit.xml").getroot()}
    assert (suites["exact"].get("tests"), suites["exact"].get("failures")) == ("20", "5")
    assert (suites["rules"].get("tests"), suites["rules"].get("failures")) == ("3", "1")
    assert "tokens" not in suites


async def test_what_was_wrong_before_is_not_the_changes_fault(tmp_path: Path) -> None:
    cases = [case("r0", result("wrong too"), expected="right"), case("r1", result("wrong"), expected="right")]
    made = await report(cases, given({"r0": [result("wrong")], "r1": [result("right")]}), out=tmp_path)
    made.write_junit(tmp_path / "junit.xml")
    suite = next(one for one in parse(tmp_path / "junit.xml").getroot() if one.get("name") == "exact")
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    assert made.summaries[0].better == ("r1",)


async def test_what_an_evaluator_has_nothing_to_say_of_is_no_pass_in_junit(tmp_path: Path) -> None:
    cases = [case("r0", result("x")), case("r1", result(failed=True))]
    made = await report(cases, given({"r0": [result("x")], "r1": [result("x")]}), out=tmp_path)
    made.write_junit(tmp_path / "junit.xml")
    suite = next(one for one in parse(tmp_path / "junit.xml").getroot() if one.get("name") == "exact")
    assert {one.get("name"): [tag.tag for tag in one] for one in suite} == {"r0": [], "r1": ["skipped"]}


async def test_evidence_alone_gives_the_same_report_and_takes_other_rules(tmp_path: Path) -> None:
    made = await twenty(tmp_path)
    again = report_of(made.evidence, [parse_rule(text) for text in RULES])
    assert again.document() == made.document()
    assert report_of(made.evidence, [parse_rule("errors > 0.5")]).verdict.state == "passed"


async def test_a_comparison_that_ends_early_leaves_the_evidence_of_the_one_before(tmp_path: Path) -> None:
    made = await twenty(tmp_path)
    before, there = made.evidence.read_bytes(), sorted(tmp_path.iterdir())

    def damaged() -> Iterator[RecordedRun]:
        yield from (case(f"r{n}", result("right")) for n in range(20))
        raise ComparisonError("the recording ends here")

    answers = given({f"r{n}": [result("right")] for n in range(20)})
    sources = Sources(recording="recording", baseline=Recorded(), candidate=answers)
    with pytest.raises(ComparisonError, match="ends here"):
        await compare(damaged(), sources, (), into=made.evidence)
    assert (made.evidence.read_bytes(), sorted(tmp_path.iterdir())) == (before, there)


async def test_evidence_that_is_torn_newer_or_none_is_refused(tmp_path: Path) -> None:
    made = await twenty(tmp_path)
    whole = made.evidence.read_bytes()
    lines = whole.splitlines(keepends=True)
    for content, why in (
        (b"".join(lines[:-1]), "is torn"),
        (whole[:-9], "is no evidence"),
        (b"".join(lines[1:]), "no evidence of a comparison"),
        (whole.replace(b'"version":1', b'"version":2', 1), "newer than 1"),
        (b"", "is torn"),
    ):
        made.evidence.write_bytes(content)
        with pytest.raises(ComparisonError, match=why):
            report_of(made.evidence, [])


async def test_repeats_of_the_baseline_show_its_noise_and_those_of_the_candidate_pass_at_k(tmp_path: Path) -> None:
    cases = [case(f"r{n}", result("right")) for n in range(10)]
    before = given({f"r{n}": [result("right"), result("right" if n else "noise")] for n in range(10)}, "before")
    now = given({f"r{n}": [result("right" if n % 2 else "wrong"), result("right")] for n in range(10)})
    made = await report(cases, now, baseline=before, out=tmp_path)
    (exact, _) = made.summaries
    assert exact.noise is not None
    assert exact.candidate is not None
    assert (exact.noise.changed, exact.noise.difference) == pytest.approx((0.1, -0.1))
    # 19 of 20 answers of the baseline are right, and 15 of 20 of the candidate: r0 differs in two of its four pairs.
    assert exact.noise.candidate_changed == pytest.approx((2 + 4 * 2) / 40)
    table = dict(zip(COLUMNS, table_rows(made.summaries)[0], strict=True))
    assert table["noise"] == "10.0% change"
    assert any("10.0% change from one play of the baseline to another, and 25.0% from" in line for line in made.lines())
    assert dict(exact.candidate.pass_at) == pytest.approx({1: 0.75, 2: 1.0})
    assert (exact.mcnemar, exact.candidate.mean) == (None, 0.75)


async def test_a_share_that_never_varied_is_not_certain(tmp_path: Path) -> None:
    cases = [case(f"r{n}", expected="right") for n in range(3)]
    answers = given({f"r{n}": [result("right"), result("right")] for n in range(3)})
    made = await report(cases, answers, out=tmp_path)
    assert table_rows(made.summaries)[0][2] == "100.0% [43.9%, 100.0%]"


async def test_each_outcome_is_a_span_linked_to_the_run_it_is_of_and_to_the_recorded_one(tmp_path: Path) -> None:
    old, new = ("a" * 32, "0199e1a0-7b02-7d11-9a6e-2f4c5d6e7f80"), ("b" * 32, "0199e1a0-7b02-7d11-9a6e-2f4c5d6e7f81")
    recorded, replayed = (
        result(text).model_copy(update={"trace_id": trace_id, "attempt_id": attempt_id})
        for text, (trace_id, attempt_id) in (("right", old), ("wrong", new))
    )
    made = await report([case("r0", recorded)], given({"r0": [replayed]}), out=tmp_path)
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    assert trace_evaluations(provider.get_tracer("t"), made.results(), recording="may") == 4
    spans = kept.get_finished_spans()
    attributes = [dict(span.attributes or {}) for span in spans]
    judged = [
        span
        for span, of in zip(spans, attributes, strict=True)
        if (of.get("gen_ai.evaluation.name"), of.get("agentstream.comparison.side")) == ("exact", "candidate")
    ]
    (one,) = judged
    links = {(format_trace_id(link.context.trace_id), format_span_id(link.context.span_id)) for link in one.links}
    assert links == {(trace_id, span_id_of(attempt_id, "agent", 0)) for trace_id, attempt_id in (old, new)}
    said = dict(one.attributes or {})
    assert (said["gen_ai.evaluation.score.label"], said["gen_ai.evaluation.score.value"]) == ("fail", 0.0)
    provider.shutdown()


def test_a_replay_is_read_by_case_the_later_of_two_lines_counts_and_a_torn_last_line_is_said(tmp_path: Path) -> None:
    def line(run_id: str, repeat: int, text: str) -> bytes:
        run = ReplayedRun(
            run_id=run_id, repeat=repeat, session_id="s", result=result(text), began_at=BEGAN, seconds=1.0
        )
        return run.to_bytes() + b"\n"

    lines = [line("r1", 1, "b"), line("r0", 0, "x"), line("r1", 0, "old"), line("r1", 0, "a"), line("r2", 0, "t")[:-9]]
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines))
    answers = ReplayAnswers.open(tmp_path)
    runs = answers.runs_of(case("r1"))
    assert not isinstance(runs, str)
    assert [(run.answer.repeat, run.answer.text) for run in runs] == [(0, "a"), (1, "b")]
    assert answers.runs_of(case("r2")) == f"{tmp_path.name} has no result of it"
    assert answers.notes == ("results.jsonl: its last line is torn and was left out",)
    for content in (b"", b"{}\n", b'{"run_id":"r"}\n'):
        (tmp_path / "results.jsonl").write_bytes(content)
        with pytest.raises(ComparisonError, match=r"results\.jsonl"):
            ReplayAnswers.open(tmp_path).runs_of(case("r"))


def test_words_that_went_and_came_are_marked() -> None:
    assert word_diff("a big <b>", "a small <b>") == ("a <del>big</del> &lt;b&gt;", "a <ins>small</ins> &lt;b&gt;")


async def test_repeats_that_never_differ_are_no_certainty(tmp_path: Path) -> None:
    cases = [case(f"r{n}", result("right"), session=f"s{n}") for n in range(6)]
    twice = given({one.run_id: [result("right")] * 2 for one in cases})
    made = await report(
        cases, twice, baseline=given({one.run_id: [result("right")] * 2 for one in cases}), out=tmp_path
    )
    (exact, errors) = made.summaries
    once = (await report(cases, given({one.run_id: [result("right")] for one in cases}), out=tmp_path)).summaries[0]
    assert exact.interval == errors.interval == once.interval
    assert exact.interval[0] < -0.2, "six cases that agree do not say that the seventh does"
    assert not any("noise" in line for line in made.lines()), "the table says 0.0% change; a line of it is no news"


async def test_what_holds_for_all_evaluators_is_said_once_and_no_unit_twice(tmp_path: Path) -> None:
    cases = [case(f"r{n}", result("right"), session="the same") for n in range(4)]
    answers = given({one.run_id: [result("right")] for one in cases})
    made = await report(cases, answers, out=tmp_path, evaluators=["exact", "tokens", "latency"])
    rough = [line for line in made.lines() if "session" in line]
    assert rough == ["4 cases of only 1 session: all intervals are rough"]
    assert [row[0] for row in table_rows(made.summaries)] == ["exact", "tokens", "latency (s)", "errors"]


async def test_a_program_gets_the_files_of_the_command(tmp_path: Path) -> None:
    made = await twenty(tmp_path)
    made.write_files()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evidence.jsonl",
        "junit.xml",
        "report.html",
        "report.json",
    ]
    assert json.loads((tmp_path / "report.json").read_text())["verdict"]["state"] == "failed"
    assert parse(tmp_path / "junit.xml").getroot().tag == "testsuites"
    page = (tmp_path / "report.html").read_text()
    assert "recording" in page
    assert "recording recording" not in page
