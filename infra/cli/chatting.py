"""`agentstream chat`: what is typed, in the main thread. What is said and answered is in `conversation`."""

import sys
from dataclasses import replace

from agentstream.infra.cli.asking import Asked, request_options
from agentstream.infra.cli.calling import where_to
from agentstream.infra.cli.chat_prompt import Prompt
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.conversation import ChatManner, Conversation
from agentstream.infra.cli.exits import FAILED, OK
from agentstream.infra.cli.loop_thread import LoopThread
from agentstream.infra.cli.screen import Screen
from agentstream.infra.rendering import shortened

__all__ = ["Chat", "ChatManner", "run_chat"]

_HELP = (
    "Ctrl-C     stop the answer; at the prompt: forget the line",
    "Ctrl-D     leave, as /exit does",
    "/new       begin a new session: the agent knows nothing of this one",
    "/session   which session this is, and its last run",
    "/help      this",
    "a line that ends in \\ goes on with the next one; begin with a space to say something that begins with /",
)


def run_chat(context: Context, asked: Asked, manner: ChatManner) -> None:
    """Talk until the user leaves; exit code 1 if lines came from a pipe and one of them was not answered."""
    screen = Screen()
    options = request_options(asked)
    prompt = Prompt(screen)
    conversation = Conversation(where_to(context), options, replace(manner, interactive=prompt.interactive), screen)
    with LoopThread() as loop:
        try:
            loop.start(conversation.open(asked.continued)).result()
            code = Chat(loop, conversation, prompt, screen).talk()
        finally:
            _leave(loop, conversation, screen)
    if code != OK and not prompt.interactive:
        sys.exit(code)


def _leave(loop: LoopThread, conversation: Conversation, screen: Screen) -> None:
    """Close it; on Ctrl-C leave at once: without brokers it takes up to 25 s."""
    closing = loop.start(conversation.close())
    try:
        closing.result()
    except KeyboardInterrupt:
        loop.abandon()
        for line in conversation.not_known_cancelled():
            screen.note(line, "red")
        raise


class Chat:
    """What is typed, and what becomes of it."""

    def __init__(self, loop: LoopThread, conversation: Conversation, prompt: Prompt, screen: Screen) -> None:
        self._loop = loop
        self._conversation = conversation
        self._prompt = prompt
        self._screen = screen

    def talk(self) -> int:
        """Until the user leaves. OK if everything was answered."""
        if self._prompt.interactive:
            self._screen.note(f"{self._conversation.described()} · /help says what can be typed")
        code = OK
        while True:
            try:
                text = self._prompt.ask()
                if text is None or text.strip() in ("/exit", "/quit"):
                    break
                if text.strip() and not self._dealt_with(text):
                    code = FAILED
            except KeyboardInterrupt:
                if not self._prompt.interactive:
                    raise
                self._screen.note("\nCtrl-D or /exit leaves")
        if self._prompt.interactive and self._conversation.session.history:
            self._screen.note(f"agentstream chat --continue {self._conversation.session.session_id}  # goes on here")
        return code

    def _dealt_with(self, text: str) -> bool:
        """Do what it says, or have it answered. False: it was neither a command of the chat's nor answered."""
        if not text.startswith("/"):
            return self._answer(text.strip())
        match text.strip():
            case "/help":
                for line in _HELP:
                    self._screen.note(line)
            case "/session":
                self._screen.note(self._conversation.described())
            case "/new":
                self._loop.start(self._conversation.new()).result()  # waits for no broker
                self._screen.note(self._conversation.described())
            case _:
                self._screen.note(f"{shortened(text)}: there is no such command; /help lists them", "red")
                return False
        return True

    def _answer(self, text: str) -> bool:
        answer = self._loop.start(self._conversation.answer(text))
        stopped = False
        while True:
            try:
                return answer.result()
            except KeyboardInterrupt:
                if not self._prompt.interactive:
                    raise
                if stopped:
                    self._screen.note(self._loop.start(self._conversation.let_go()).result(), "yellow")
                    return False
                self._loop.start(self._conversation.stop())
                stopped = True
