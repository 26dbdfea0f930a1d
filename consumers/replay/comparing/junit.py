"""A comparison as JUnit XML: a suite of the rules, and a suite for each evaluator that passes or fails."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement

from agentstream.consumers.replay.comparing.evidence import OutcomeLine, read_lines
from agentstream.consumers.replay.comparing.summary import EvaluatorSummary
from agentstream.consumers.replay.comparing.verdict import Verdict

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, evidence: Path, summaries: Sequence[EvaluatorSummary], verdict: Verdict) -> None:
    """Write it. A case that got worse is a failure; one that the evaluator raised on is an error. Skipped are those
    that were wrong before as well, since the change did not break them, and those of which the evaluator had nothing
    to say, which would else look like passes. Rules that were not judged are errors."""
    root = Element("testsuites", name="agentstream compare")
    rules = _suite(root, "rules")
    for one in verdict.rules:
        case = SubElement(rules, "testcase", classname="rules", name=_clean(one.rule))
        if one.state != "passed":
            _say(case, "failure" if one.state == "failed" else "error", one.why)
    said = _said(evidence)
    for summary in summaries:
        if summary.kind == "passed":
            _evaluator(root, summary, said.get(summary.evaluator.name, {}))
    for suite in root:
        suite.set("tests", str(len(suite)))
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(attribute, str(sum(case.find(tag) is not None for case in suite)))
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _evaluator(root: Element, summary: EvaluatorSummary, said: dict[str, list[OutcomeLine]]) -> None:
    name = summary.evaluator.name
    suite = _suite(root, name)
    worse = set(summary.worse)
    for run_id, outcomes in said.items():
        case = SubElement(suite, "testcase", classname=_clean(name), name=_clean(run_id))
        why = next((one.explanation for one in outcomes if one.passed is False and one.explanation), None)
        raised = next((one.error for one in outcomes if one.error is not None), None)
        wrong = summary.baseline is None and any(one.passed is False for one in outcomes)
        if run_id in worse or wrong:
            _say(case, "failure", why or "passed less often than it should")
        elif raised is not None:
            _say(case, "error", raised)
        elif any(one.passed is False for one in outcomes):
            _say(case, "skipped", f"no worse than the baseline: {why}" if why else "no worse than the baseline")
        elif all(one.passed is None for one in outcomes):
            _say(case, "skipped", "the evaluator had nothing to say of it")


def _said(evidence: Path) -> dict[str, dict[str, list[OutcomeLine]]]:
    """The candidate's outcomes by evaluator and case."""
    found: dict[str, dict[str, list[OutcomeLine]]] = {}
    for line in read_lines(evidence):
        if isinstance(line, OutcomeLine) and line.side == "candidate":
            found.setdefault(line.evaluator, {}).setdefault(line.run_id, []).append(line)
    return found


def _suite(root: Element, name: str) -> Element:
    return SubElement(root, "testsuite", name=_clean(name))


def _say(case: Element, tag: str, text: str) -> None:
    SubElement(case, tag, message=_clean(text)).text = _clean(text)


def _clean(text: str) -> str:
    """XML 1.0 has no place for most control characters, and answers do have them."""
    return _NOT_XML.sub("\ufffd", text)
