r"""Directives in the last user message, which tests use to make the model do exactly this and nothing else.

[[say: Hello there.]]                       a step that answers exactly this
[[think: hm]]                               reasoning before the next step's text
[[tool:bash {"command": "echo hi"}]]        a step that calls a tool; several in a row are several steps
[[and:read {"path": "a"}]]                  one more call in the same step
[[loop:bash {"command": "true"}]]           calls the tool for ever
[[big: 2000000]]                            a step that answers so many bytes
[[fail:429 retry_after=1 times=2]]          an HTTP status; only the first `times` calls, if given
[[fail:refuse]]  hang, stall, cut           closes before the first byte; never answers; stops mid-stream; cuts it
[[pace: 20]]                                milliseconds between two words
[[usage: prompt=1000 cached=200 completion=7]]
[[length]]                                  the step before it ends with finish_reason "length"
"""

import json
import re
from dataclasses import replace

from agentstream.infra.offline_model.script import DEFAULT_MESSAGE, Fault, JsonObject, Plan, Reply, Tokens, ToolCall

_START = re.compile(r"\[\[(?P<name>say|think|tool|and|loop|big|fail|pace|usage|length)\b:?\s*")
_CALL = re.compile(r"(?P<tool>[\w.-]+)\s*")
_OPTION = re.compile(r"(\w+)=(\S+)")


def parse_directives(prompt: str) -> Plan | None:
    """The plan that the prompt's directives make, or None if it holds none.

    Raises ValueError for a directive that is misspelt inside: a script with a typo must not look like an answer.
    """
    plan, position, found, thought = Plan(), 0, False, ""
    while match := _START.search(prompt, position):
        found, name = True, match["name"]
        if name in ("tool", "and", "loop"):
            call, position = _tool_call(prompt, match.end())
            plan = _with_call(plan, name, call, thought)
            thought = ""
            continue
        end = prompt.find("]]", match.end())
        if end < 0:
            raise ValueError(f"directive {name} does not end with ]]")
        body, position = prompt[match.end() : end].strip(), end + 2
        if name == "think":
            thought = body
        elif name in ("say", "big"):
            text = body if name == "say" else _filler(int(body))
            plan, thought = plan.with_step(Reply(text=text, reasoning=thought)), ""
        else:
            plan = _with_setting(plan, name, body)
    return plan if found else None


def _tool_call(prompt: str, position: int) -> tuple[ToolCall, int]:
    match = _CALL.match(prompt, position)
    if match is None:
        raise ValueError("a tool directive needs the tool's name")
    # The arguments may hold `]]` themselves, so JSON says where they end.
    arguments, end = json.JSONDecoder().raw_decode(prompt, match.end())
    closing = prompt.find("]]", end)
    if not isinstance(arguments, dict) or closing < 0:
        raise ValueError("a tool directive needs a JSON object and ]]")
    checked: JsonObject = arguments
    return ToolCall(name=match["tool"], arguments=checked), closing + 2


def _with_call(plan: Plan, name: str, call: ToolCall, thought: str) -> Plan:
    if name == "and" and plan.steps:
        last = plan.steps[-1]
        return replace(plan, steps=(*plan.steps[:-1], replace(last, tool_calls=(*last.tool_calls, call))))
    return replace(plan.with_step(Reply(tool_calls=(call,), reasoning=thought)), loop=plan.loop or name == "loop")


def _with_setting(plan: Plan, name: str, body: str) -> Plan:
    options = dict(_OPTION.findall(body))
    match name:
        case "pace":
            return replace(plan, pace_ms=int(body))
        case "usage":
            numbers = {key: int(value) for key, value in options.items()}
            return replace(plan, tokens=Tokens(**numbers))
        case "length":
            if not plan.steps:
                raise ValueError("length ends the step before it, and there is none")
            return replace(plan, steps=(*plan.steps[:-1], replace(plan.steps[-1], finish_reason="length")))
        case _:
            times = options.get("times")
            fault = Fault(
                kind=body.split(maxsplit=1)[0],
                retry_after=options.get("retry_after"),
                times=None if times is None else int(times),
                message=options.get("message", DEFAULT_MESSAGE).replace("_", " "),
            )
            return replace(plan, fault=fault)


def _filler(size: int) -> str:
    line = "All work and no play makes a long answer. "
    return (line * (size // len(line) + 1))[:size]
