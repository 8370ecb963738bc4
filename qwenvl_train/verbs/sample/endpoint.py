"""The answers of a server with OpenAI's interface, each asked for by itself, so that it has a seed of its own."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.index.lengths import Problem, problem_of
from qwenvl_train.endpoint.client import Endpoint, RefusedRequest
from qwenvl_train.endpoint.completions import Completion
from qwenvl_train.endpoint.messages import messages_of
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.answering import Row, rows_of
from qwenvl_train.evaluation.drawing import Drawing
from qwenvl_train.evaluation.generation import Answer, Request, Try, answer_to, requests_of
from qwenvl_train.families.thoughts import BEGIN_THOUGHTS, END
from qwenvl_train.reporting.bar import counting
from qwenvl_train.run.answers_folder import AnswersFolder
from qwenvl_train.run.context import RunContext
from qwenvl_train.verbs.sample.settings import SampleConfig


def ask_endpoint(
    context: RunContext,
    rows: Rows,
    missing: Sequence[int],
    folder: AnswersFolder,
    drawing: Drawing,
    proven: bool,
) -> tuple[list[Problem], int]:
    """Ask for the missing answers. Return the rows that cannot be used, and the number of answers, of all processes,
    which must call this together.

    Args:
        proven: Whether the server has answered other rows before, with the same settings.
    """
    asking = _Asking(context, rows, drawing, proven)
    generated = 0
    mine = missing[context.rank :: context.processes]
    with counting("answering", len(mine), shown=context.is_main) as progress:
        for done, found in enumerate(asking.answers(mine), start=1):
            folder.append(found, context.rank)
            generated += len(found)
            progress(done)
    (generated,) = context.cpu_group.sum([generated])
    return context.cpu_group.everything(asking.problems), generated


class _Asking:
    def __init__(self, context: RunContext, rows: Rows, drawing: Drawing, proven: bool):
        assert isinstance(context.config, SampleConfig)
        self._context, self._rows, self._drawing, self._section = context, rows, drawing, context.config.sample
        self._endpoint = Endpoint(self._section.endpoint, "sample.endpoint")
        self._endpoint.proven = proven
        self._waiting: deque[tuple[int, Request, Try, bool]] = deque()
        """What was asked and is not answered yet, in order: the index of the sample, the request, the number and seed
        of the answer, and whether it is the last one of its sample."""
        self.problems: list[Problem] = []

    def answers(self, indices: Sequence[int]) -> Iterator[list[Row]]:
        """Yield the rows of all answers to a sample, sample by sample. Samples with a request that the server refuses
        become problems."""
        answers: list[Answer] = []
        refused: RefusedRequest | None = None
        for completions in self._endpoint.complete_all(self._requests(indices)):
            index, request, drawn, last = self._waiting.popleft()
            if isinstance(completions, RefusedRequest):
                refused = refused or completions
            else:
                answers.append(self._answer(request, completions, drawn))
            if not last:
                continue
            if refused:
                error = UserError(f"{request.sample.where}: {refused.told}.")
                self.problems.append(problem_of(self._rows.samples.origin(index), error))
            else:
                yield rows_of(answers, [index] * len(answers), self._rows)
            answers, refused = [], None

    def _requests(self, indices: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the sample and the arguments of each request, and remember what is asked. Rows that cannot be read
        become problems."""
        for index in indices:
            sample = None
            try:
                sample = self._rows.samples[index]
                asked = [
                    (request, self._messages(request))
                    for request in requests_of(sample, self._rows.renderer, self._context.processor.tokenizer)
                ]
            except UserError as error:
                self.problems.append(problem_of(self._rows.samples.origin(index), error))
                continue
            places = [
                (request, messages, Try(number, seed))
                for request, messages in asked
                for number, seed in enumerate(self._drawing.seeds(sample, request.turn), start=1)
            ]
            for place, (request, messages, drawn) in enumerate(places, start=1):
                self._waiting.append((index, request, drawn, place == len(places)))
                yield index, self._arguments(messages, drawn)

    def _messages(self, request: Request) -> list[dict[str, Any]]:
        return messages_of(request.sample.up_to_answer(request.turn).question)

    def _arguments(self, messages: list[dict[str, Any]], drawn: Try) -> dict[str, Any]:
        limits = {"top_p": self._section.top_p, "max_tokens": self._section.max_new_tokens, "seed": drawn.seed}
        return {"messages": messages, "n": 1, "temperature": self._section.temperature, **limits}

    def _answer(self, request: Request, completions: Sequence[Completion], drawn: Try) -> Answer:
        (one,) = completions
        # The server writes the prompt, and says what the thoughts are.
        asked = replace(request, thoughts="")
        return answer_to(asked, _words(one), one.ended, one.tokens, self._context.family, drawn)


def _words(completion: Completion) -> str:
    """Return thoughts and answer in one text, as a model writes them."""
    if not completion.thoughts.strip():
        return completion.text
    thoughts = f"{BEGIN_THOUGHTS}{completion.thoughts.strip()}"
    if not completion.ended and not completion.text:
        return thoughts
    return f"{thoughts}\n{END}\n\n{completion.text}"
