"""A conversation on the terminal, or with lines from another program."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

from qwenvl_train.data.formats import Reference
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.families.family import Family
from qwenvl_train.reporting.stdout import print_json
from qwenvl_train.verbs.chat.model import open_model, sampling_of
from qwenvl_train.verbs.chat.opening import locator_of, references
from qwenvl_train.verbs.chat.session import ChatSession
from qwenvl_train.verbs.chat.settings import ChatConfig
from qwenvl_train.verbs.chat.shown import about, as_json, show

HELP = """\
/image FILE …   add images to the next question; <image> in its text places them, otherwise they come first
/video FILE …   add videos
/system TEXT    set the system turn and start again; without TEXT, that of the published template
/clear          start again
/exit           end, as Ctrl-D does; Ctrl-C stops an answer"""


def talk(config: ChatConfig, family: Family) -> None:
    session = ChatSession(open_model(config, family), sampling_of(config.chat), locator_of(config), config.chat.system)
    terminal = Terminal(session, config, by_hand=sys.stdin.isatty())
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  (gives `input` the arrow keys)
        print("/help lists commands")
    for line in _lines():
        if not terminal.take(line):
            break


class Terminal:
    """Takes the lines of a conversation.

    Args:
        by_hand: Whether somebody types them. A mistake in the lines of a program ends the conversation, because the
            lines after it may depend on it.
    """

    def __init__(self, session: ChatSession, config: ChatConfig, by_hand: bool = True):
        self._session, self._config, self._by_hand = session, config, by_hand
        self._media: list[Reference] = []
        """What is added to the next question."""

    def take(self, line: str) -> bool:
        """Carry out a command or answer a question. Return False if the conversation has ended."""
        command, _, rest = line.strip().partition(" ")
        if not command:
            return True
        try:
            match command:
                case "/exit" | "/quit":
                    return False
                case "/help":
                    print(HELP)
                case "/image" | "/video":
                    self._add("image" if command == "/image" else "video", rest)
                case "/system":
                    self._session.system = rest.strip() or None
                    self._start_again()
                case "/clear":
                    self._start_again()
                case _ if command.startswith("/"):
                    raise UserError(
                        f"{command}: there is no such command; /help lists them, and a space before it makes it text"
                    )
                case _:
                    self._answer(line)
        except UserError as error:
            if not self._by_hand:
                raise
            print(message_of(error))
        sys.stdout.flush()
        return True

    def _start_again(self) -> None:
        self._session.clear()
        self._media = []
        print("the conversation starts again")

    def _add(self, kind: Literal["image", "video"], words: str) -> None:
        try:
            paths = shlex.split(words)
        except ValueError as error:
            raise UserError(f"/{kind}: {str(error).lower()}.") from None
        if not paths:
            raise UserError(f"/{kind}: name a file, in quotes if its name has spaces.")
        for reference in references(kind, paths):
            size = self._session.measured(reference, f"/{kind}")
            self._media.append(reference)
            print(f"{kind} {sum(of == kind for of, _ in self._media)}: {reference[1]}, {size}")

    def _answer(self, text: str) -> None:
        media, self._media = self._media, []
        stopped = False
        pieces = self._session.ask(text, media)
        try:
            show(pieces)
        except KeyboardInterrupt:
            stopped = True
        finally:
            pieces.close()  # an interrupt may come between two pieces
        print()
        answer = self._session.last
        if answer is not None and self._config.output == "json":
            print_json(as_json(answer, self._config))
        elif answer is not None:
            for line in about(answer, self._config, stopped):
                print(line)


def _lines() -> Iterator[str]:
    """Yield the lines that are typed. On a terminal, Ctrl-C abandons a line, and Ctrl-D ends them."""
    prompt = "\n> " if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(prompt)
        except EOFError:
            if prompt:
                print()
            return
        except KeyboardInterrupt:
            if not prompt:
                raise
            print("\n(/exit or Ctrl-D ends)")
        except UnicodeDecodeError:
            print("a line is not UTF-8 text")
