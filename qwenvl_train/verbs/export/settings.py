"""The settings of the verb export, and the rules that they keep to."""

from typing import Annotated, Literal

from pydantic import PositiveInt, StringConstraints

from qwenvl_train.config.inference import InferenceConfig, added_to_wandb_run, one_model
from qwenvl_train.config.rules.rule import Lines, among
from qwenvl_train.config.section import Section
from qwenvl_train.config.verb import Verb


class ExportSection(Section):
    to: str | None
    """The folder to write, which must not exist or be empty. With null, it is <run>/export/<form>."""
    form: Literal["merged", "adapter"]
    """Whether to write one model, or LoRA weights alone, for servers that load adapters."""
    dtype: Literal["auto", "bf16", "fp16", "fp32"]
    """The type of the weights. auto takes that of the base model. LoRA weights keep their own."""
    shard_size: Annotated[str, StringConstraints(pattern=r"^[1-9]\d*(KB|MB|GB)$")]
    """The most bytes of one file of weights, such as 5GB."""
    verify: bool
    """Whether to reload the result in another process and to compare it with the run before it is kept."""
    rows: PositiveInt
    """The number of held-out rows whose logits and answers are compared."""
    wandb: bool
    """Whether the facts about the export are added to the W&B run of `run`, and the export as an artifact unless
    logging.wandb.artifacts is none."""


class ExportConfig(InferenceConfig):
    export: ExportSection


def export_settings_are_used(config: ExportConfig, given: frozenset[str]) -> Lines:
    if not config.export.verify:
        for key in among(given, "export.rows"):
            yield f"{key} has no effect with export.verify=false"


EXPORT = Verb(
    "export",
    ExportConfig,
    (one_model, export_settings_are_used, added_to_wandb_run("export")),
    "qwenvl_train.verbs.export.command:run",
    reads=(),
    trains=False,
)
