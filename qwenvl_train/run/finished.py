"""The model of a finished run, for the verbs that use it."""

from pathlib import Path
from typing import TypeVar

from qwenvl_train.config.inference import InferenceConfig, run_folder_of
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.checkpoints import best_of
from qwenvl_train.step_folders import saved

C = TypeVar("C", bound=InferenceConfig)


def with_checkpoint(config: C) -> C:
    """Return the configuration with the checkpoint of config.run in model.path, and without the settings of training
    that change how a model is built. The machine on which a model is used may have other kernels."""
    plain = {"cache_vision": False, "compile": False, "liger": False, "checkpointing": "none", "attention": "auto"}
    sections = {
        "deepspeed": config.deepspeed.model_copy(update={"stage": 0}),
        "train": config.train.model_copy(update=plain),
    }
    config = config.model_copy(update=sections)
    if config.run is None:
        return config
    path = str(_checkpoint_of(config.run, config.train.best_metric).absolute())
    model = config.model.model_copy(update={"path": path, "revision": None, "shape": None})
    return config.model_copy(update={"model": model})


def _checkpoint_of(run: str, metric: str) -> Path:
    """Return the best checkpoint of a run by `metric`, or the newest one if none has a score."""
    folder, path = run_folder_of(run), Path(run).expanduser()
    if folder != path:
        if path.is_dir():
            return path
        raise UserError(f"run={run}: there is no such checkpoint{_others(folder)}.")
    checkpoints = saved(folder / "checkpoints")
    if not checkpoints:
        raise UserError(f"run={run}: the run has no checkpoint yet.")
    best = best_of(checkpoints, metric)
    return best.checkpoint if best else checkpoints[-1]


def _others(folder: Path) -> str:
    names = [checkpoint.name for checkpoint in saved(folder / "checkpoints")]
    return f"; the run has {', '.join(names)}" if names else ""
