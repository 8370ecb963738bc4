"""The answers to the rows of data files. They are written line by line, so that a killed job goes on where it was."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from qwenvl_train.data.render.renderer import Rendered
from qwenvl_train.data.sample import Sample, Text, Turn
from qwenvl_train.data.samples import Questions
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.evaluation.answering import fitting_batch_size
from qwenvl_train.evaluation.batches import MAX_TOKENS, in_halves
from qwenvl_train.families.family import Family
from qwenvl_train.files import whole_lines
from qwenvl_train.model.build import base_model
from qwenvl_train.model.load import identity_of
from qwenvl_train.model.processor import load_processor
from qwenvl_train.reporting.bar import counted
from qwenvl_train.reporting.wording import count, many
from qwenvl_train.run.rows import make_renderer
from qwenvl_train.verbs.chat.model import ChatModel, open_model, sampling_of
from qwenvl_train.verbs.chat.session import Answer, Reply, answer_of
from qwenvl_train.verbs.chat.settings import ChatConfig


@dataclass(frozen=True)
class Question:
    index: int
    tokens: int
    problem: str | None = None
    """Why the row cannot be answered, or None."""


def answer_all(config: ChatConfig, family: Family) -> None:
    chat = config.chat
    assert chat.input is not None
    assert chat.to is not None
    rows = Questions(chat.input, "chat.input", config.data.allow_remote, config.cache_folder)
    for line in rows.describe():
        print(line)
    file = AnswersFile(Path(chat.to).expanduser().absolute(), _settings(config, family))
    done = file.done(rows)
    if done:
        print(f"{count(done)} of {many(len(rows), 'row')} are already answered in {file.path}", flush=True)
    if done < len(rows):
        model = open_model(config, family)
        questions = _checked(rows, range(done, len(rows)), model, config)
        unusable = file.add(rows, counted(_records(rows, questions, model, config), "answering", len(questions)))
        left_out = f"; {many(unusable, 'row')} could not be used" if unusable else ""
        print(f"{many(len(questions) - unusable, 'answer')} added to {file.path}{left_out}")


def _checked(rows: Questions, indices: range, model: ChatModel, config: ChatConfig) -> list[Question]:
    """Read and lay out the rows, so that a broken one is reported before the first answer. With data.on_error=skip, its
    problem takes the place of its answer."""
    checked = []
    for index in counted(indices, "checking chat.input", len(indices)):
        try:
            length = model.renderer.layout(_with_system(rows[index], config)).length
            checked.append(Question(index, length))
        except UserError as error:
            checked.append(Question(index, 0, _tolerated(error, config)))
    return checked


def _tolerated(error: UserError, config: ChatConfig) -> str:
    if config.data.on_error == "raise":
        raise UserError(f"{message_of(error)} (data.on_error=skip goes on with the other rows.)") from None
    return message_of(error)


def _records(
    rows: Questions, questions: list[Question], model: ChatModel, config: ChatConfig
) -> Iterator[dict[str, Any]]:
    """Yield for each row what is written of it beside its name."""
    for group in _groups(questions, model, config):
        found = [one.problem or _question(rows, one.index, model, config) for one in group]
        answers = iter(_answers_to([one for one in found if not isinstance(one, str)], model, config))
        for one in found:
            yield {"problem": one} if isinstance(one, str) else _record(next(answers))


def _record(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "regions": answer.grounding.as_json(),
        "tokens": {"prompt": answer.prompt_tokens, "answer": answer.tokens},
        "ended": answer.ended,
    }


def _groups(questions: list[Question], model: ChatModel, config: ChatConfig) -> Iterator[list[Question]]:
    """Yield successive questions that are answered together."""
    longest = max(one.tokens for one in questions) + config.chat.max_new_tokens
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
    size = fitting_batch_size(base_model(model.model), longest, free) if config.chat.temperature == 0 else 1
    group: list[Question] = []
    for one in questions:
        tokens = sum(other.tokens for other in group)
        if group and (len(group) == size or tokens + one.tokens > MAX_TOKENS):
            yield group
            group = []
        group.append(one)
    yield group


def _question(rows: Questions, index: int, model: ChatModel, config: ChatConfig) -> tuple[Sample, Rendered] | str:
    """Return a question with its rendering, or its problem if a picture or clip cannot be decoded."""
    try:
        sample = _with_system(rows[index], config)
        return sample, model.renderer.render(sample)
    except UserError as error:
        return _tolerated(error, config)


def _answers_to(questions: list[tuple[Sample, Rendered]], model: ChatModel, config: ChatConfig) -> list[Answer]:
    if config.chat.temperature > 0:
        sampling = sampling_of(config.chat, config.seed)
        return [Reply(model, sample, sampling, *sampling.drawing.seeds(sample, 1)).whole() for sample, _ in questions]
    if not questions:
        return []

    def answers(some: Sequence[tuple[Sample, Rendered]]) -> list[Answer]:
        decoded = model.decode([rendered for _, rendered in some], config.chat.max_new_tokens)
        pairs = zip(decoded, some, strict=True)
        return [answer_of(said, sample, rendered.layout, model) for said, (sample, rendered) in pairs]

    return in_halves(questions, answers, lambda question: question[0].where)


def _with_system(sample: Sample, config: ChatConfig) -> Sample:
    """Return the sample with the system turn of chat.system, unless it has one."""
    if config.chat.system is None or sample.turns[0].role == "system":
        return sample
    return replace(sample, turns=(Turn("system", (Text(config.chat.system),), train=False), *sample.turns))


def _settings(config: ChatConfig, family: Family) -> dict[str, Any]:
    """Return the settings that answers depend on, and which each line of the file has. `weights` and `rendering` are
    digests: of the files of the model, and of the limits on media with everything else that makes the input."""
    chat = config.chat
    renderer = make_renderer(config, load_processor(config.model, family), family)
    drawn = {} if chat.temperature == 0 else {"top_p": chat.top_p, "top_k": chat.top_k, "seed": config.seed}
    return {
        "model": config.model.path,
        "weights": _digest(identity_of(config.model)),
        "rendering": _digest(renderer.fingerprint()),
        "system": chat.system,
        "temperature": chat.temperature,
        **drawn,
        "max_new_tokens": chat.max_new_tokens,
    }


def _digest_of_question(rows: Questions, index: int) -> str:
    """Return a digest of a row without its answer, and of its images and clips by their sizes and times."""
    try:
        sample = rows[index]
    except UserError as error:
        return _digest(message_of(error))
    paths = [content for media in sample.media for content in media.contents if isinstance(content, str)]
    stats = [(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, filter(os.path.exists, paths))]
    return _digest(repr((sample, stats)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


class AnswersFile:
    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        self._settings = settings

    def done(self, rows: Questions) -> int:
        """Return the number of rows that the file has answers to. They are the first ones.

        Raises:
            UserError: If the file holds something else, so that a wrong one is not added to.
        """
        lines = self._lines()
        for index, line in enumerate(lines):
            place = f"chat.to={self.path}: line {index + 1}"
            try:
                written = json.loads(line)
                found, settings = (written["source"], written["line"]), written["settings"]
                question = written["question"]
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{place} is not an answer of this command; name another file.") from None
            if index >= len(rows) or found != rows.origin(index):
                raise UserError(
                    f"{place} answers {found[0]}:{found[1]}, which is not row {index + 1} of chat.input; name another "
                    "file."
                )
            if differing := [key for key in self._settings | settings if self._settings.get(key) != settings.get(key)]:
                key = differing[0]
                raise UserError(
                    f"{place} was answered with {key}={settings.get(key)}, and now it is {self._settings.get(key)}; "
                    "name another file, or remove this one."
                )
            if question != _digest_of_question(rows, index):
                raise UserError(
                    f"{place} answers what {found[0]}:{found[1]} was before: the row or its media have changed; name "
                    "another file, or remove this one."
                )
        return len(lines)

    def add(self, rows: Questions, records: Iterable[dict[str, Any]]) -> int:
        """Add the records of the rows that the file does not have yet, and return how many of them are problems."""
        start, problems = len(self._lines()), 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                for index, record in enumerate(records, start=start):
                    source, line = rows.origin(index)
                    name = {"id": rows.id(index), "source": source, "line": line}
                    facts = {"question": _digest_of_question(rows, index), "settings": self._settings}
                    row = name | record | facts
                    file.write(json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n")
                    file.flush()
                    problems += "problem" in record
        except OSError as error:
            raise UserError(f"chat.to={self.path} cannot be written: {error.strerror}.") from error
        return problems

    def _lines(self) -> list[bytes]:
        """Return the whole lines of the file, and cut off the rest, which a killed job has left."""
        try:
            return whole_lines(self.path)
        except OSError as error:
            raise UserError(f"chat.to={self.path} cannot be read: {error.strerror}.") from None
