"""A comparison as one HTML file: no network, everything that anybody wrote escaped, scripts other than ours refused."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path

from agentstream.consumers.replay.comparing.columns import column
from agentstream.consumers.replay.comparing.comparison import Comparison
from agentstream.consumers.replay.comparing.differences import word_diff
from agentstream.consumers.replay.comparing.evidence import AnswerLine, MissingLine, OfRun, OutcomeLine, read_lines
from agentstream.consumers.replay.comparing.pictures import picture
from agentstream.consumers.replay.comparing.summary import EvaluatorSummary
from agentstream.consumers.replay.comparing.terminal import COLUMNS, STATE_WORDS, remarks, table_rows
from agentstream.consumers.replay.comparing.verdict import Verdict

MOST_CASES = 500
"""Cases with their texts in the page, changed ones first: a browser is slow with more."""
_LONGEST = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """The lines of one case."""

    answers: dict[str, AnswerLine] = field(default_factory=dict)
    """The first of each side; the evidence has all."""
    plays: Counter[str] = field(default_factory=Counter)
    outcomes: list[OutcomeLine] = field(default_factory=list)
    missing: list[MissingLine] = field(default_factory=list)


def write_html(
    path: Path, evidence: Path, comparison: Comparison, summaries: Sequence[EvaluatorSummary], verdict: Verdict
) -> None:
    """Write the report."""
    changes = _changes(comparison, summaries)
    shown = sorted(changes, key=lambda run_id: _interest(changes[run_id]))[:MOST_CASES]
    path.parent.mkdir(parents=True, exist_ok=True)
    page = "".join(_page(evidence, comparison, summaries, verdict, {run_id: changes[run_id] for run_id in shown}))
    path.write_text(page, encoding="utf-8", errors="replace")


def _changes(comparison: Comparison, summaries: Sequence[EvaluatorSummary]) -> dict[str, dict[str, str]]:
    """By case: what became of it, by evaluator."""
    found: dict[str, dict[str, str]] = {pair.run_id: {} for pairs in comparison.columns.values() for pair in pairs}
    for one in summaries:
        for word, run_ids in (("better", one.better), ("worse", one.worse)):
            for run_id in run_ids:
                found[run_id][one.evaluator.name] = word
        for pair in comparison.columns[one.evaluator.name]:
            if any(outcome.error for outcome in (*pair.baseline, *pair.candidate)):
                found[pair.run_id][one.evaluator.name] = "error"
    for line in comparison.missing:
        found.setdefault(line.run_id, {})["answer"] = "missing"
    return found


def _interest(changes: dict[str, str]) -> int:
    order = ("worse", "missing", "error", "better")
    return min((order.index(change) for change in changes.values()), default=len(order))


def _page(
    evidence: Path,
    comparison: Comparison,
    summaries: Sequence[EvaluatorSummary],
    verdict: Verdict,
    shown: dict[str, dict[str, str]],
) -> Iterator[str]:
    about = comparison.about
    here = files("agentstream.consumers.replay.comparing")
    style, script = (here.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    ours = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{ours}'; base-uri 'none'"
    title = f"{about.candidate} against {about.baseline}"
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield f'<meta name="viewport" content="width=device-width"><style>{style}</style></head><body>'
    recording = "recording" if about.recording == "recording" else f"recording {about.recording}"
    yield f"<h1>{escape(title)}</h1><p class=quiet>{escape(recording)} · "
    yield f"{about.made_at:%Y-%m-%d %H:%M} · seed {about.seed} · {escape(about.comparison_id)}</p>"
    for rule in verdict.rules:
        yield f'<div class="verdict {rule.state}"><b>{STATE_WORDS[rule.state]}</b> <code>{escape(rule.rule)}</code> '
        yield f"<div class=quiet>{escape(rule.why)}</div></div>"
    yield "<h2>What changed</h2><table><thead><tr>"
    yield "".join(f"<th>{escape(name)}</th>" for name in COLUMNS) + "</tr></thead><tbody>"
    for row in table_rows(summaries):
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table><ul class=quiet>"
    yield "".join(f"<li>{escape(line)}</li>" for line in remarks(comparison, summaries)) + "</ul>"
    yield "<h2>Distributions</h2>"
    for one in summaries:
        drawn = picture(column(comparison.columns[one.evaluator.name], one.kind), one.evaluator.unit)
        if drawn:
            yield f"<h3>{escape(one.evaluator.name)}</h3>{drawn}"
    yield from _filters([one.evaluator.name for one in summaries], len(shown), _case_count(comparison))
    for run_id, case in _cases(evidence, shown).items():
        yield from _case(run_id, case, shown[run_id])
    yield f"<script>{script}</script></body></html>\n"


def _case_count(comparison: Comparison) -> int:
    return max((len(pairs) for pairs in comparison.columns.values()), default=0)


def _filters(names: Sequence[str], shown: int, total: int) -> Iterator[str]:
    left = f" The other {total - shown} are in the evidence." if total > shown else ""
    yield f"<h2>Cases</h2><p class=quiet>{shown} of {total}, changed ones first.{left}</p><div class=filters>"
    yield '<select id=evaluator aria-label="Evaluator"><option value="">any evaluator</option>'
    yield "".join(f"<option>{escape(name)}</option>" for name in names) + "</select>"
    yield '<select id=change aria-label="Change"><option value="">all</option>'
    yield "".join(f"<option>{word}</option>" for word in ("worse", "better", "error", "missing")) + "</select>"
    yield '<input id=words type=search placeholder="words in the case" aria-label="Words"><span id=count></span></div>'


def _cases(evidence: Path, shown: dict[str, dict[str, str]]) -> dict[str, _Case]:
    found = {run_id: _Case() for run_id in shown}
    for line in read_lines(evidence):
        if not isinstance(line, OfRun) or line.run_id not in found:
            continue
        case = found[line.run_id]
        match line:
            case AnswerLine():
                case.answers.setdefault(line.side, line)
                case.plays[line.side] += 1
            case OutcomeLine():
                case.outcomes.append(line)
            case MissingLine():
                case.missing.append(line)
    return found


def _case(run_id: str, case: _Case, changes: dict[str, str]) -> Iterator[str]:
    before, now = case.answers.get("baseline"), case.answers.get("candidate")
    any_answer = now or before
    yield f'<section class=case data-changes="{escape(json.dumps(changes), quote=True)}">'
    yield f"<header><b>{escape(run_id)}</b>"
    yield "".join(
        f'<span class="tag {escape(change)}">{escape(name)} {escape(change)}</span>' for name, change in changes.items()
    )
    yield "</header>"
    if any_answer is not None:
        yield f"<details><summary>{escape(any_answer.question[:160])}</summary>"
        yield f"<pre>{escape(any_answer.question[:_LONGEST])}</pre></details>"
        if any_answer.reference_from == "expected":
            reference = any_answer.reference
            text = reference if isinstance(reference, str) else json.dumps(reference, ensure_ascii=False)
            yield f"<p class=quiet>expected</p><pre>{escape(text[:_LONGEST])}</pre>"
    left, right = word_diff(before.text[:_LONGEST] if before else "", now.text[:_LONGEST] if now else "")
    yield "<div class=two>"
    for name, line, text in (("baseline", before, left), ("candidate", now, right)):
        which = f", first of {case.plays[name]} plays" if case.plays[name] > 1 else ""
        yield f"<div><p class=quiet>{name}{which}{_status(line)}</p><pre>{text}</pre>"
        yield f"{_outcomes(case.outcomes, name)}</div>"
    yield "</div>"
    for one in case.missing:
        yield f"<p class=quiet>no {one.side}: {escape(one.why)}</p>"
    yield "</section>"


def _status(line: AnswerLine | None) -> str:
    if line is None:
        return ": no answer"
    calls = "".join(f"<br><code>{escape(call[:300])}</code>" for call in line.tool_calls)
    diverged = f"<br>left the recording: {escape(line.divergence)}" if line.divergence else ""
    return f": {escape(line.status)}{calls}{diverged}"


def _outcomes(outcomes: Sequence[OutcomeLine], side: str) -> str:
    items = []
    for one in outcomes:
        if one.side != side or (one.passed is None and one.value is None and one.error is None):
            continue
        said = "error" if one.error else f"{one.value:.4g}" if one.value is not None else ""
        passed = "" if one.passed is None else "pass" if one.passed else "fail"
        why = one.error or one.explanation or ""
        repeat = f" #{one.repeat}" if one.repeat else ""
        items.append(f"<li>{escape(f'{one.evaluator}{repeat}: {passed} {said} {why}'.strip())}</li>")
    return f"<ul class=quiet>{''.join(items)}</ul>"
