"""Decides whether a run may resume from a checkpoint. It may only if it continues as the first run would have."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from qwenvl_train.config.compose import compose
from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.config.flat import flat
from qwenvl_train.config.paths import with_absolute_paths, with_relative_paths
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.order.step_size import FirstStart, MicroStep, StepSize
from qwenvl_train.errors import UserError
from qwenvl_train.step_folders import is_checkpoint, saved, step_of
from qwenvl_train.training.checkpoint import PROGRESS
from qwenvl_train.training.checksums import damage
from qwenvl_train.training.meter import RunProgress

DAMAGED = "damaged-"
"""What the name of a damaged checkpoint begins with once it is set aside."""

# These keys may change when a run resumes. A change of any other key would change the loss curve.
FREE = (
    "run_name",
    "output_dir",
    "model.shape",
    "data.workers",
    "data.on_error",
    "data.max_skipped",
    "data.cache",
    "data.cache_pictures",
    "train.eval_batch_size",
    "train.checkpointing",
    "train.checkpoint_every",
    "train.offload_activations",
    "train.cache_vision",
    "train.log_steps",
    "train.eval_steps",
    "train.save_steps",
    "train.save_minutes",
    "train.grace_seconds",
    "train.rehearse",
    "train.on_nan",
    "train.keep",
    "train.best_metric",
    "train.patience",
    "train.stall_seconds",
    "train.resume",
    "deepspeed.nvme_path",
    "deepspeed.gather_on_save",
    "logging",
    "eval",
)


class ResumePoint(NamedTuple):
    checkpoint: str | None
    """The path of the checkpoint to resume from."""
    damaged: dict[str, str]
    """The later checkpoints, which are damaged, by their paths, and what is wrong with each."""

    @property
    def path(self) -> Path | None:
        return Path(self.checkpoint) if self.checkpoint else None


def checkpoint_to_resume(config: RunConfig, folder: Path) -> ResumePoint:
    """Return the checkpoint to resume from. Raise UserError if the folder has checkpoints that must not be continued,
    or if all are damaged."""
    checkpoints, damaged = saved(folder / "checkpoints"), {}
    match config.train.resume:
        case "auto":
            found = None
            for checkpoint in reversed(checkpoints):
                if (fault := damage(checkpoint)) is None:
                    found = checkpoint
                    break
                damaged[str(checkpoint)] = fault
            if damaged and found is None:
                raise UserError(
                    f"{folder}: every checkpoint is damaged ({_in_words(damaged)}). Choose another run_name to start "
                    "from the beginning."
                )
        case "never":
            found = None
            if checkpoints:
                raise UserError(
                    f"{folder} already contains checkpoints, which train.resume=never would overwrite; "
                    "choose another run_name, or set train.resume=auto to continue from them."
                )
        case path:
            found = Path(path).resolve()
            if not is_checkpoint(found) or not (found / "trainer_state.json").is_file():
                raise UserError(f"train.resume: {found} is not a checkpoint of qwenvl-train; choose a folder step-…")
            if fault := damage(found):
                raise UserError(f"train.resume: {found} is damaged: {fault}; choose an earlier checkpoint.")
            later = [old.name for old in checkpoints if step_of(old) > step_of(found)]
            if later:
                raise UserError(
                    f"train.resume: {folder} also contains later checkpoints ({', '.join(later)}), which this run "
                    "would mix with its own; choose another run_name."
                )
    return ResumePoint(str(found) if found else None, damaged)


def about_damaged(point: ResumePoint) -> str:
    """Return a line about the checkpoints that the run cannot resume from, or an empty one."""
    if not point.damaged or point.path is None:
        return ""
    return (
        f"damaged checkpoints are left out, and are now called {DAMAGED}step-N: {_in_words(point.damaged)}; the run "
        f"resumes from {point.path.name}"
    )


def _in_words(damaged: dict[str, str]) -> str:
    return "; ".join(f"{Path(checkpoint).name}: {fault}" for checkpoint, fault in damaged.items())


def facts_of_start(start: FirstStart) -> dict[str, Any]:
    """Return the facts about the size of a step. Their names are those of the settings that they take the place of,
    since auto and the number that it stands for give the same curve."""
    step, micro_step = start
    return {
        "processes": micro_step.processes,
        "train.batch_size": micro_step.batch_size,
        "train.accumulation": step.accumulation,
        "data.pack_length": step.pack_length,
    }


def first_start_of(checkpoint: Path) -> FirstStart | None:
    """Return the size of the steps of the run that wrote a checkpoint, or None if the run is not known."""
    tree, environment = _stored(checkpoint.parent.parent)
    if tree is None:
        return None
    return _first_start(tree, (environment or {}).get("run", {}))


def _first_start(tree: dict[str, Any], run: dict[str, Any]) -> FirstStart:
    # An older version stored neither the batch size nor, before that, the number of processes as facts.
    micro_step = MicroStep(run.get("processes", 1), run.get("train.batch_size", tree["train"]["batch_size"]))
    return FirstStart(_step_size(tree, run), micro_step)


def _step_size(tree: dict[str, Any], run: dict[str, Any]) -> StepSize:
    if "data.pack_length" in run:
        return StepSize(run["train.accumulation"], run["data.pack_length"])
    # An older version filled packed rows to data.max_length, and had no auto.
    return StepSize(tree["train"]["accumulation"], tree["data"]["max_length"] if tree["data"]["packing"] else None)


def progress_at(checkpoint: Path) -> RunProgress:
    try:
        return RunProgress.of(json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"train.resume: {checkpoint} has no {PROGRESS}: it is damaged, or an older version wrote it. Resume "
            "with that version."
        ) from None


def refuse_changes(config: RunConfig, facts: dict[str, Any], checkpoint: Path) -> None:
    """Raise UserError if a run with these settings may not resume from the checkpoint.

    `facts` are values that the loss curve depends on but that are not in the configuration. environment.json stores
    them.
    """
    stored = checkpoint.parent.parent
    if changed := changed_settings(config, stored, facts):
        raise UserError(
            f"The run in {stored} cannot resume with changed settings: {'; '.join(changed)}. "
            "Change them back, or choose another run_name."
        )


def changed_settings(config: RunConfig, stored: Path, facts: dict[str, Any] | None = None) -> list[str]:
    """Return a line for each setting that the run in `stored` had otherwise, and that would change the loss curve.

    `facts` are compared, too. With None, only the settings are.
    """
    tree, environment = _stored(stored)
    if tree is None:
        return []
    tree = _with_whole_entries(tree)
    environment, here = environment or {}, Path.cwd()
    there = Path(environment.get("working_directory", here))
    run: dict[str, Any] = {}
    if facts is not None:
        run = environment.get("run", facts)
        run = facts_of_start(_first_start(tree, run)) | run
    facts = facts or {}
    # Older versions also stored the sections of other verbs.
    before = with_absolute_paths({key: value for key, value in tree.items() if key in RunConfig.model_fields}, there)
    now = with_absolute_paths(config.model_dump(mode="json"), here)
    if unknown := flat(now).keys() - flat(before).keys():
        # An older version did not have these settings, and behaved as their defaults do now.
        shipped = flat(compose(["tune_mm_llm=true"]).config.model_dump(mode="json"))
        run = {key: shipped.get(key) for key in unknown} | run
    # A file is the same if its path is, or if the folder in which both runs are started was moved as a whole.
    moved = _changes(flat(with_relative_paths(before, there)) | run, flat(with_relative_paths(now, here)) | facts)
    changes = _changes(flat(before) | run, flat(now) | facts)
    told = {key: line for key, line in changes.items() if key in moved}
    implied = _COUNTS if "data.train" in told else ()
    return [line for key, line in told.items() if key not in implied]


@dataclass(frozen=True, eq=False)
class _StepUnits:
    """The number of units in a step. Its factors may change as long as it does not."""

    batch_size: int
    accumulation: int
    processes: int

    @property
    def product(self) -> int:
        return self.batch_size * self.accumulation * self.processes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _StepUnits) and self.product == other.product

    def __str__(self) -> str:
        return f"{self.batch_size} × {self.accumulation} × {self.processes} = {self.product}"

    def remedy(self, before: "_StepUnits") -> str:
        """Return how to have as many units as before, in brackets, or nothing if they cannot be divided."""
        accumulation, rest = divmod(before.product, self.batch_size * self.processes)
        return "" if rest else f" (train.accumulation={accumulation} keeps it)"


_FACTORS = ("train.batch_size", "train.accumulation", "processes")


def _with_step_units(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with the number of units in a step in place of its factors, if all are known."""
    if not all(isinstance(values.get(key), int) for key in _FACTORS):
        return values
    rest = {key: value for key, value in values.items() if key not in _FACTORS}
    return rest | {" × ".join(_FACTORS): _StepUnits(*(values[key] for key in _FACTORS))}


def _with_whole_entries(tree: dict[str, Any]) -> dict[str, Any]:
    """Return stored settings in which the entries of data.train and data.eval have every key. An older version did not
    have all of them, and behaved as their defaults do now."""
    data, defaults = dict(tree["data"]), SourceConfig(path="").model_dump(mode="json")
    for key in ("train", "eval"):
        if isinstance(data.get(key), list):
            data[key] = [defaults | entry for entry in data[key]]
    return tree | {"data": data}


def _stored(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the settings of the run in a run folder, and its environment.json. A missing file gives None."""
    config, environment = folder / "config.yaml", folder / "environment.json"
    return (
        yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None,
        json.loads(environment.read_text(encoding="utf-8")) if environment.is_file() else None,
    )


_COUNTS = ("samples", "tokens", "streamed_files", "streamed_bytes")
"""The facts that count what data.train has. Of other files they differ, too, and say nothing more."""


def _changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """Return a description of each changed key whose change would change the loss curve."""
    before, now = _with_step_units(before), _with_step_units(now)
    return {
        key: f"{key} was {_written(before.get(key))}, is {_written(now.get(key))}"
        f"{_remedy(before.get(key), now.get(key))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not f"{key}.".startswith(tuple(f"{free}." for free in FREE))
    }


def _written(value: object) -> str:
    """Return a value as a user writes it. An entry of data.train or data.eval has only what differs from its defaults,
    and a single one stands alone."""
    if isinstance(value, _StepUnits | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        entries = [_short_entry(entry) for entry in value]
        value = entries[0] if len(entries) == 1 else entries
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _short_entry(entry: dict[str, Any]) -> object:
    defaults = SourceConfig(path="").model_dump(mode="json")
    named = {key: value for key, value in entry.items() if value != defaults.get(key)}
    return named["path"] if named.keys() == {"path"} else named


def _remedy(before: object, now: object) -> str:
    return now.remedy(before) if isinstance(before, _StepUnits) and isinstance(now, _StepUnits) else ""
