"""What the offline model makes of a prompt without directives: enough for a demo to be real, and no more.

It runs a command, reads and writes files when it is asked to and has the tool; it finds facts in the history and the
instructions it was sent ("My name is Ada" … "What is my name?"); it counts; else it greets and says what it is.
"""

import re

from agentstream.infra.offline_model.script import OFFLINE_NOTE, Conversation, Plan, Reply, ToolCall

_QUOTED = r"[`'\"“]([^`'\"”\n]+)[`'\"”]"
_RUN = re.compile(rf"\b(?:run|execute|call)\b[^`'\"“\n]{{0,40}}{_QUOTED}", re.IGNORECASE)
_WRITE = re.compile(
    rf"\bwrite\b\s+{_QUOTED}\s+(?:in)?to\s+(?:the\s+file\s+|a\s+file\s+(?:named\s+)?)?[`'\"]?([\w./-]*\w)",
    re.IGNORECASE,
)
_READ = re.compile(r"\bread\b\s+(?:the\s+file\s+|me\s+)?[`'\"]?([\w/-]*\.\w+)", re.IGNORECASE)
_QUESTION = re.compile(r"\bwhat(?:'s|\s+is|\s+was)\s+(my|your)\s+([\w ]+?)\s*\?", re.IGNORECASE)
_NAME = re.compile(r"\b(?:my name is|i am called|call me)\s+([\w-]+)", re.IGNORECASE)
_COUNT = re.compile(r"\bcount\s+(?:up\s+)?to\s+(\d{1,4})\b", re.IGNORECASE)
_GREETING = re.compile(r"^\W*(?:hi|hello|hey|good (?:morning|day|evening))\b", re.IGNORECASE)
_SHOWN = 2_000
_DEMO_PACE_MS = 25


def plan_conversation(conversation: Conversation) -> Plan:
    """The tools the prompt asks for, one a step, then an answer."""
    calls = _calls(conversation)
    steps = [Reply(tool_calls=(call,)) for call in calls]
    return Plan(steps=(*steps, Reply(text=f"{_answer(conversation, calls)} {OFFLINE_NOTE}")), pace_ms=_DEMO_PACE_MS)


def _calls(conversation: Conversation) -> list[ToolCall]:
    prompt = conversation.prompt
    wanted: list[tuple[int, ToolCall]] = []
    if "bash" in conversation.tools:
        wanted += [(m.start(), ToolCall(name="bash", arguments={"command": m[1]})) for m in _RUN.finditer(prompt)]
    if "write" in conversation.tools:
        for match in _WRITE.finditer(prompt):
            arguments = {"path": match[2], "content": f"{match[1]}\n"}
            wanted.append((match.start(), ToolCall(name="write", arguments={**arguments})))
    if "read" in conversation.tools:
        wanted += [(m.start(), ToolCall(name="read", arguments={"path": m[1]})) for m in _READ.finditer(prompt)]
    return [call for _, call in sorted(wanted, key=lambda entry: entry[0])]


def _answer(conversation: Conversation, calls: list[ToolCall]) -> str:
    if conversation.tool_outputs:
        return _report(conversation.tool_outputs, calls)
    prompt = conversation.prompt
    if question := _QUESTION.search(prompt):
        return _recall(conversation, question[1].lower(), question[2].lower())
    if count := _COUNT.search(prompt):
        return " ".join(str(number) for number in range(1, int(count[1]) + 1)) + "."
    if name := _NAME.search(prompt):
        return f"Nice to meet you, {name[1]}. I will find your name in the history when you ask for it."
    if _GREETING.search(prompt):
        return "Hello! I am glad that your message found its way through Kafka to me and back."
    return f"I read your {len(prompt.split())} words; to think about them takes a real model."


def _report(outputs: tuple[str, ...], calls: list[ToolCall]) -> str:
    lines = []
    for index, output in enumerate(outputs):
        call = calls[index] if index < len(calls) else None
        what = f"`{call.arguments.get('command') or call.arguments.get('path')}`" if call else "The tool"
        name = f"{call.name} " if call else ""
        lines.append(f"{name}{what} gave: {output.strip()[:_SHOWN] or 'nothing'}")
    return "Done. " + "\n".join(lines) + "\n"


def _recall(conversation: Conversation, whose: str, thing: str) -> str:
    """Looks where a person would: the user's own words for `my`, the instructions for `your`."""
    if whose == "your":
        sources, owner = [conversation.system], "your"
    else:
        sources = [turn.text for turn in reversed(conversation.turns[:-1]) if turn.role == "user"]
        owner = "my"
    value = r"((?:(?!\s(?:and|but)\s)[^.!,?\n])+)"
    fact = re.compile(rf"\b{owner} {re.escape(thing)} (?:is|was) {value}", re.IGNORECASE)
    for source in sources:
        if match := fact.search(source):
            return f"{'Your' if owner == 'my' else 'My'} {thing} is {match[1].strip()}."
        if thing == "name" and owner == "my" and (name := _NAME.search(source)):
            return f"Your name is {name[1]}."
    return f"Nobody told me {'your' if owner == 'my' else 'my'} {thing} in this conversation."
