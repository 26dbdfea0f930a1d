"""Comparing a replay with what was recorded, or with another replay; and the verdict on it.

comparison.py   compare(...): reads both sides, evaluates each case, writes the evidence
evidence.py     the evidence file; everything below is a projection of it
summary.py      what got better and worse, with intervals and the noise of the baseline
rules.py        the language of `--fail-if`
verdict.py      what a rule says of a comparison
terminal.py, junit.py, html.py, spans.py
                the same for people, for CI, for a browser, for traces
"""
