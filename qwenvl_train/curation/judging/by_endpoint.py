"""Judgements by an OpenAI-compatible server: a request for each question, answered by the most likely first tokens."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

from qwenvl_train.curation.judging.engine import Answered, Asked
from qwenvl_train.curation.judging.prompts import Choice, Figures, normalized
from qwenvl_train.endpoint.client import Endpoint, RefusedRequest
from qwenvl_train.endpoint.completions import Completion
from qwenvl_train.endpoint.messages import messages_of
from qwenvl_train.errors import UserError, message_of

_TOP = 20
"""The number of log-probabilities that are asked for, which is the most that servers give."""
_LEAST = 1e-300
_UNLIKELY = -100.0
"""The log-probability of options that are not among the most likely tokens, as if they had none."""


class EndpointEngine:
    all_at_once = False
    proven = False

    def __init__(self, endpoint: Endpoint):
        self._endpoint = endpoint
        self.identity = f"{endpoint.url} {endpoint.model}"

    def answers(self, rows: Sequence[Asked]) -> Iterator[list[Answered]]:
        problems: list[Answered] = []
        told: list[Asked] = []

        def requests() -> Iterator[tuple[int, dict[str, Any]]]:
            for row in rows:
                try:
                    messages = messages_of(row.sample)
                except UserError as error:
                    problems.append(Answered(row.number, (), message_of(error)))
                    continue
                told.append(row)
                yield from ((row.number, _request(messages, _choice(prompt).text)) for prompt in row.prompts)

        self._endpoint.proven |= self.proven
        with closing(self._endpoint.complete_all(requests())) as completions:
            for number, answers in enumerate(_by_row(completions, told)):
                yield [self._answered(told[number], answers)]
        yield problems

    def _answered(self, row: Asked, answers: Sequence[Completion | RefusedRequest]) -> Answered:
        figures = []
        for prompt, answer in zip(row.prompts, answers, strict=True):
            if isinstance(answer, RefusedRequest):
                return Answered(row.number, (), f"{row.sample.where}: {answer.told}.")
            top, choice = answer.top_logprobs[0], _choice(prompt)
            if not (found := log_probs_of(choice, top)):
                first = max(top, key=top.__getitem__)
                return Answered(
                    row.number,
                    (),
                    f"{row.sample.where}: the model {self._endpoint.model} does not answer with one of "
                    f"{', '.join(choice.options)}, but begins with {first!r}; a model that thinks first cannot judge.",
                )
            figures.append(found)
        return Answered(row.number, tuple(figures))


def log_probs_of(choice: Choice, top: dict[str, float]) -> Figures:
    """Return the log-probabilities of the options of a choice, given that one of them is the answer. There are none if
    no option is among the most likely tokens. Tokens that differ only in white space are the same option."""
    found = [[value for token, value in top.items() if token.strip() == option] for option in choice.options]
    if not any(found):
        return ()
    return normalized([math.log(sum(map(math.exp, values)) or _LEAST) if values else _UNLIKELY for values in found])


def _by_row(
    completions: Iterable[list[Completion] | RefusedRequest], rows: Sequence[Asked]
) -> Iterator[list[Completion | RefusedRequest]]:
    """Yield the answers to the prompts of each row. `rows` grows while they are read."""
    number = 0
    answers: list[Completion | RefusedRequest] = []
    for completion in completions:
        answers.append(completion if isinstance(completion, RefusedRequest) else completion[0])
        if len(answers) == len(rows[number].prompts):
            yield answers
            number, answers = number + 1, []


def _choice(prompt: Any) -> Choice:
    assert isinstance(prompt, Choice)
    return prompt


def _request(messages: list[dict[str, Any]], question: str) -> dict[str, Any]:
    return {
        "messages": [*messages, {"role": "user", "content": question}],
        "temperature": 0.0, "top_p": 1.0, "max_tokens": 1, "seed": 0, "top_logprobs": _TOP,
    }  # fmt: skip
