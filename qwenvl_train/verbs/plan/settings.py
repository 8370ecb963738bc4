"""The settings of the verb plan, and the rules that they keep to."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from qwenvl_train.config.devices import DeviceName
from qwenvl_train.config.rules.rule import Lines
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.config.section import Section
from qwenvl_train.config.verb import RUN_RULES, Verb


class PlanSection(Section):
    fit: Literal["require", "report"]
    """What happens if the run does not fit into the memory of the devices. With require, the command ends with exit
    code 2. With report, it only reports it."""
    device: DeviceName
    """The kind of GPU for which the run is planned."""
    devices: PositiveInt
    """The number of GPUs. One process runs on each."""
    device_gib: PositiveFloat | None
    """The memory of one GPU in GiB, as nvidia-smi and torch count it. With null, it is the memory of its kind."""
    tflops: PositiveFloat | None
    """The most dense bf16 operations per second of one GPU, in units of 10¹². With null, it is the figure in its data
    sheet."""
    mfu: Annotated[float, Field(gt=0, le=1)]
    """The share of tflops that a run uses. The metrics of a run report its actual share."""


class PlanConfig(RunConfig):
    output: Literal["text", "json"]
    plan: PlanSection


def planned_device_is_described_once(config: PlanConfig, given: frozenset[str]) -> Lines:
    own = config.plan.device_gib is not None and config.plan.tflops is not None
    if "plan.device" in given and own:
        yield "plan.device has no effect together with plan.device_gib and plan.tflops"


PLAN = Verb(
    "plan",
    PlanConfig,
    # A planned run is often for another machine, so the rules about installed packages do not apply.
    (*RUN_RULES, planned_device_is_described_once),
    "qwenvl_train.verbs.plan.command:run",
    sweep="qwenvl_train.verbs.plan.sweep:run",
)
