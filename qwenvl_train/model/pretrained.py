"""Read the config and the family of model.path before its weights, with errors that say what to do."""

import math
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError

from transformers import AutoConfig, PreTrainedConfig
from transformers.utils.logging import disable_progress_bar

from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.errors import UserError
from qwenvl_train.families import family_of
from qwenvl_train.families.family import Family
from qwenvl_train.model.sharded import is_sharded, load_sharded
from qwenvl_train.model.stored_adapter import ADAPTER_CONFIG, whole_model
from qwenvl_train.model.weights_only import reason_of_refusal
from qwenvl_train.step_folders import saved


def load_config(config: ModelConfig):
    return from_pretrained(whole_model(config), AutoConfig)


def load_family(config: ModelConfig) -> Family:
    """Return the family of the checkpoint, and raise UserError if it is not the expected one.

    Only the checkpoint's config is read, so that a wrong family is reported before weights are read.
    """
    checkpoint = load_config(config)
    family = family_of(checkpoint.model_type, f"model.path {config.path}")
    if config.family is not None and config.family != family.model_type:
        raise UserError(
            f"model.path {config.path} contains a {family.model_type} model, but model.family is {config.family}; "
            "use a model= option of its family, or model=custom."
        )
    return with_own_numbers(family, checkpoint.vision_config)


def with_own_numbers(family: Family, vision: PreTrainedConfig) -> Family:
    """Return the family with the numbers that the vision config of a checkpoint sets."""
    if family.video_time == "seconds":
        family = replace(family, tokens_per_second=vision.tokens_per_second)
    if family.window_size is not None:
        family = replace(family, window_size=vision.window_size)
    if family.position_side is not None:
        family = replace(family, position_side=math.isqrt(vision.num_position_embeddings))
    return family


def from_pretrained(config: ModelConfig, auto_class, **options):
    local = Path(config.path).expanduser()
    if local.exists() and not any((local / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
        raise UserError(f"model.path {local} has no config.json; give the folder of a checkpoint{_in_run(local)}.")
    if not local.exists() and (config.path.startswith((".", "/", "~")) or config.path.count("/") > 1):
        raise UserError(
            f"model.path {local} does not exist; give the folder of a checkpoint{_in_run(local.parent.parent)}."
        )
    where = str(local.absolute()) if local.exists() else config.path
    disable_progress_bar()
    try:
        if auto_class.__name__.startswith("AutoModel") and is_sharded(local):
            return load_sharded(local.absolute(), **options)
        # Without the setting for remote code, transformers would ask on the terminal whether to run it.
        return auto_class.from_pretrained(where, revision=config.revision or "main", trust_remote_code=False, **options)
    except (OSError, ValueError, RuntimeError, UnpicklingError) as error:
        refusal = reason_of_refusal(error)
        if refusal is None and not isinstance(error, OSError | ValueError):
            raise
        reason = refusal or str(error).strip().splitlines()[0]
        if local.exists():
            raise UserError(f"model.path {where} cannot be loaded: {reason}") from error
        raise UserError(
            f"model.path {where} is not a local folder and could not be downloaded from the model hub: {reason} "
            "Check the name and the network, or download the model and give its folder."
        ) from error


def _in_run(folder: Path) -> str:
    """Return a hint at the newest checkpoint of a run folder, or nothing for other folders."""
    checkpoints = saved(folder / "checkpoints")
    return f", such as {checkpoints[-1]}" if checkpoints else ""
