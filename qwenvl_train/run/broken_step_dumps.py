"""Says which samples a broken step had, and writes what is needed to repeat it with one command."""

import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from qwenvl_train.data.sample import sample_name
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.reporting.console import console_on, say
from qwenvl_train.reporting.folder import write_json_lines_atomic, write_text_atomic
from qwenvl_train.reporting.wording import many
from qwenvl_train.run.opening import OpenedRun
from qwenvl_train.run.training_data import MeasuredData
from qwenvl_train.step_folders import saved
from qwenvl_train.training.broken_steps import MOST_IN_A_ROW, BrokenRun, BrokenStep, Suspect
from qwenvl_train.training.disk_space import free_bytes
from qwenvl_train.training.trainer import VisionTrainer
from qwenvl_train.training.window import Origin

_NAMED = 8
"""The largest number of samples that a message names."""


class BrokenStepDumps:
    """Called with each broken step of a run, on all processes together. The main process prints and writes."""

    def __init__(self, opened: OpenedRun, checkpoint_bytes: int):
        self._opened, self._checkpoint_bytes = opened, checkpoint_bytes
        self._config, self._start = opened.context.config, opened.start

    def __call__(self, trainer: VisionTrainer, broken: BrokenStep) -> None:
        folder = self._start.folder / "nan" / f"step-{broken.step}"
        weights = broken.ends_run and self._with_weights(trainer, broken, folder)
        message = self._written(broken, folder, weights) if self._opened.context.is_main else ""
        if broken.ends_run:
            raise BrokenRun(message)
        if self._opened.context.is_main:
            say(console_on(), message)

    def _with_weights(self, trainer: VisionTrainer, broken: BrokenStep, folder: Path) -> bool:
        """Save the weights of the step, unless they are those with which the run started. Return whether they are
        saved."""
        if broken.step == 1:
            return False
        main = self._opened.context.is_main
        if self._opened.context.cpu_group.any(main and free_bytes(folder) < self._checkpoint_bytes):
            return False
        trainer.save_model(str(folder / "weights"))
        return True

    def _written(self, broken: BrokenStep, folder: Path, weights: bool) -> str:
        """Write the dump, and return the message about the step."""
        folder.mkdir(parents=True, exist_ok=True)
        names, formats, problem = self._named_rows(broken, folder)
        what = "the loss" if broken.suspects[0].broken_loss else "the gradient"
        text = f"step {broken.step}: {what} is not a number; {_places(broken.suspects, names)}. "
        if problem:
            text += f"The samples could not be copied to {folder}: {problem.rstrip('.')}"
        else:
            write_text_atomic(folder / "recipe.yaml", self._recipe(formats, len(broken.origins), folder, weights))
            text += f"To repeat it: qwenvl-train +recipe={shlex.quote(str(folder / 'recipe.yaml'))}"
        return f"{text}. {self._consequence(broken)}"

    def _consequence(self, broken: BrokenStep) -> str:
        if not broken.ends_run:
            return "The step is skipped."
        if broken.in_a_row >= MOST_IN_A_ROW:
            return f"This was the last of {MOST_IN_A_ROW} such steps in a row, so the run ends."
        return "The weights are those before the step. With train.on_nan=skip, the run goes on without such steps."

    def _named_rows(self, broken: BrokenStep, folder: Path) -> tuple[dict[Origin, str], list[str], str]:
        """Write a file for the rows of each format. Return the names of the samples, these formats, and what prevents a
        copy of the rows."""
        names, rows, problem = {}, defaultdict(list), ""
        opened: dict[str, Samples | None] = {}
        for source, line in broken.origins:
            names[source, line] = f"{source}:{line}"
            try:
                if source not in opened:
                    opened[source] = self._samples_of(source)
                samples = opened[source]
                index = None if samples is None else samples.index_in_whole(source, line)
                if samples is None or index is None:
                    raise UserError(f"{source} cannot be opened again.")
                names[source, line] = sample_name(source, line, samples.id(index) or "")
                format, row = samples.copied(index)
                rows[format].append(row)
            except UserError as error:
                problem = problem or message_of(error)
        if not problem:
            for format, found in rows.items():
                write_json_lines_atomic(folder / f"{format}.jsonl", found)
        return names, list(rows), problem

    def _samples_of(self, source: str) -> Samples | None:
        """Return the samples that contain a source. Of a stream, only this source is opened."""
        train = self._opened.data.train
        if isinstance(train, MeasuredData):
            return train.rows.samples.whole
        cache, remote = self._config.cache_folder, self._config.data.allow_remote
        for entry in train.stream.entries:
            if any(flow.name == source for flow, _ in entry.files):
                only = entry.config.model_copy(update={"path": source})
                return Samples((only,), "data.train", remote, cache)
        return None

    def _recipe(self, formats: list[str], samples: int, folder: Path, weights: bool) -> str:
        """Return a recipe that computes the samples one by one in a single step. Their order does not change the
        gradient, and the sample that is the cause is named."""
        entries = [{"path": f"{format}.jsonl", "format": format} for format in formats]
        data: dict[str, Any] = {"train": entries, "eval": None, "streaming": False, "packing": False}
        train = {"batch_size": 1, "accumulation": samples, "max_steps": 1, "warmup": 0, "on_nan": "stop"}
        made: dict[str, Any] = {
            "defaults": ["../../config.yaml"],
            "run_name": f"{self._start.folder.name}-{folder.name}",
            "data": data,
            "train": train,
            "logging": {"wandb": {"mode": "disabled"}},
        }
        if weights:
            made["model"] = {"path": "weights", "revision": None}
        elif checkpoints := saved(self._start.folder / "checkpoints"):  # the nearest weights that there are
            made["model"] = {"path": f"../../checkpoints/{checkpoints[-1].name}", "revision": None}
        return yaml.safe_dump(made, sort_keys=False, allow_unicode=True)


def _places(suspects: tuple[Suspect, ...], names: dict[Origin, str]) -> str:
    """Return the micro-batches with the names of their samples, as many as a message has room for."""
    found, left = [], _NAMED
    for suspect in suspects:
        shown = [names[origin] for origin in suspect.origins[:left]]
        if shown:
            found.append(f"micro-batch {suspect.number} of process {suspect.process} has {', '.join(shown)}")
        left -= len(shown)
    unnamed = len(names) - (_NAMED - left)
    return "; ".join(found) + (f" and {many(unnamed, 'more sample')}" if unnamed > 0 else "")
