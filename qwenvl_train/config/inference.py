"""The settings that the verbs for a trained model share: which model they load, and which settings of its run apply."""

from pathlib import Path

from qwenvl_train.config.entries import Sources
from qwenvl_train.config.rules.rule import Lines, Rule
from qwenvl_train.config.schema import DataConfig, RunConfig
from qwenvl_train.errors import UserError


class InferenceData(DataConfig):
    train: Sources = ()
    """Only needed if data.eval is a share of it."""


class InferenceConfig(RunConfig):
    run: str | None
    """A run folder, whose settings apply and whose best checkpoint is loaded, or one checkpoint in a run folder. With
    null, the model is model.path."""
    data: InferenceData


def settings_of_run(run: str) -> Path:
    """Return the file with the settings of a run, which is given as for the key `run`."""
    folder = run_folder_of(run)
    if (folder / "config.yaml").is_file():
        return folder / "config.yaml"
    what = "is not a run folder: it has no config.yaml" if folder.is_dir() else "does not exist"
    runs = sorted(path.parent.name for path in folder.parent.glob("*/config.yaml"))
    others = f" There are {', '.join(runs[:5])}{', …' if len(runs) > 5 else ''} in {folder.parent}." if runs else ""
    raise UserError(f"run={run}: {folder} {what}; name a run folder or a checkpoint in one.{others}")


def run_folder_of(run: str) -> Path:
    """Return the run folder of a run, which is given as for the key `run`."""
    path = Path(run).expanduser()
    return path.parent.parent if path.parent.name == "checkpoints" else path


def one_model(config: InferenceConfig, given: frozenset[str]) -> Lines:
    if config.run is not None and "model.path" in given:
        yield "run and model.path both name a model; set one of the two"


def added_to_wandb_run(verb: str) -> Rule:
    """Return the rule for the key `wandb` in the section of a verb, which adds its results to the W&B run of `run`."""

    def rule(config: InferenceConfig, given: frozenset[str]) -> Lines:
        if not getattr(config, verb).wandb:
            return
        if config.run is None:
            yield f"{verb}.wandb=true needs run=, a tracked run folder or a checkpoint in one, such as runs/mine"
        elif config.logging.wandb.mode == "disabled":
            yield f"{verb}.wandb=true has no effect with logging.wandb.mode=disabled"

    return rule
