"""Opens the W&B run of a finished run, to which a verb adds what it finds."""

from qwenvl_train.config.inference import InferenceConfig, run_folder_of
from qwenvl_train.reporting.attached import AttachedRun
from qwenvl_train.run.lock import refuse_in_use


def wandb_run(key: str, wanted: bool, config: InferenceConfig) -> AttachedRun | None:
    """Return the W&B run of `run` if the setting `key` asks for it. Raise UserError if there is none."""
    if not wanted:
        return None
    assert config.run is not None
    folder = run_folder_of(config.run)
    refuse_in_use(key, folder)
    return AttachedRun(key, folder, config.logging.wandb)
