"""What a server answers to a request for chat completions, checked against what it was asked."""

import json
import math
from dataclasses import dataclass
from typing import Any

_ENDED = ("stop", "tool_calls", "function_call", "eos")
"""The reasons for which an answer ends that is not cut."""


@dataclass(frozen=True)
class Completion:
    """One answer."""

    text: str
    thoughts: str
    """What the model has thought before the text, if the server tells it apart (`reasoning_content`)."""
    ended: bool
    """Whether the model has ended the answer. Otherwise it was cut."""
    tokens: int | None
    """The number of generated tokens, if the server tells it for this answer."""
    top_logprobs: tuple[dict[str, float], ...] = ()
    """For each token the log-probabilities of the most likely ones, by their text. Empty unless asked for."""


class Lie(Exception):
    """An answer that is not what was asked for. The message says how."""


def completions_in(body: bytes, n: int, model: str, logprobs: bool) -> list[Completion]:
    """Return the `n` completions of an answer.

    Raises:
        Lie: If the answer has another form, is by another model, or lacks completions or log-probabilities.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise Lie(f"the server's answer is not JSON: {body[:80].decode('utf-8', 'replace')!r}") from None
    if not isinstance(answer, dict) or not isinstance(choices := answer.get("choices"), list) or not choices:
        raise Lie(f"the server's answer has no choices: {json.dumps(answer)[:80]}")
    by = answer.get("model", model)
    if by != model and not str(by).startswith(f"{model}-"):  # such as the date of a version
        raise Lie(f"the server was asked for the model {model}, but {by} has answered")
    if len(choices) < n:
        raise Lie(f"the server was asked for {n} answers, but has given {len(choices)}")
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) and len(choices) == 1 else None
    return [_completion(choice, tokens if isinstance(tokens, int) else None, logprobs) for choice in choices[:n]]


def _completion(choice: Any, tokens: int | None, logprobs: bool) -> Completion:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Lie("a choice of the server's answer has no message")
    text = message.get("content") or ""
    thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
    if not isinstance(text, str) or not isinstance(thoughts, str):
        raise Lie("the content of the server's answer is not text")
    found = _top_logprobs(choice) if logprobs else ()
    return Completion(text, thoughts, choice.get("finish_reason") in _ENDED, tokens, found)


def _top_logprobs(choice: dict[str, Any]) -> tuple[dict[str, float], ...]:
    try:
        found = tuple(
            {str(top["token"]): float(top["logprob"]) for top in token["top_logprobs"]}
            for token in choice["logprobs"]["content"]
        )
    except (KeyError, TypeError, ValueError):
        found = ()
    if not found or not found[0]:
        raise Lie("the server was asked for log-probabilities, but gives none; use one that does, such as vLLM's")
    if any(math.isnan(value) for token in found for value in token.values()):
        raise Lie("the server gives log-probabilities that are no numbers")
    return found
