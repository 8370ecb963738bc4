"""Whether a run may go on from a checkpoint: only where what comes next is what would have come."""

from pathlib import Path
from typing import Any

import yaml

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.errors import UserError
from qwenvl_train.training.checkpoint import saved

# These may change between the two parts of a run; any other key would bend its curve.
FREE = (
    "run_name", "output_dir", "data.workers", "data.eval", "train.eval_batch_size", "train.log_steps",
    "train.eval_steps", "train.save_steps", "train.keep", "train.resume", "logging",
)  # fmt: skip


def checkpoint_to_resume(config: RunConfig, folder: Path) -> Path | None:
    checkpoints = saved(folder / "checkpoints")
    match config.train.resume:
        case "auto":
            found = checkpoints[-1] if checkpoints else None
        case "never":
            found = None
            if checkpoints:
                raise UserError(
                    f"{folder} already holds checkpoints, and train.resume=never would overwrite them; "
                    "choose another run_name, or train.resume=auto to go on."
                )
        case path:
            found = Path(path)
            if not (found / "trainer_state.json").is_file():
                raise UserError(f"train.resume: {found} is no checkpoint of this project (no trainer_state.json).")
    if found is not None:
        _refuse_changes(config, found)
    return found


def _refuse_changes(config: RunConfig, checkpoint: Path) -> None:
    stored = checkpoint.parent.parent / "config.yaml"
    if not stored.is_file():
        return
    before = _flat(yaml.safe_load(stored.read_text(encoding="utf-8")))
    now = _flat(config.model_dump(mode="json"))
    changed = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(FREE)
    ]
    if changed:
        raise UserError(
            f"The run in {stored.parent} cannot go on with other settings: {'; '.join(changed)}. "
            "Set them back, or choose another run_name."
        )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in _flat(branch, f"{prefix}.{name}" if prefix else name).items()
    }
