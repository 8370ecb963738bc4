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
    """The number of GPUs on all nodes together. One process runs on each."""
    nodes: PositiveInt
    """The number of hosts, each with the same number of GPUs."""
    link_gbytes: PositiveFloat | None
    """The GB per second that a GPU sends to another one of its node. With null, they are those of its kind."""
    network_gbits: PositiveFloat
    """The Gbit per second that a node sends to another one, with all of its network adapters together."""
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
    plan = config.plan
    own = ["device_gib", "tflops", *(["link_gbytes"] if plan.devices > 1 else [])]
    if "plan.device" in given and all(getattr(plan, key) is not None for key in own):
        yield f"plan.device has no effect together with {' and '.join(f'plan.{key}' for key in own)}"


def planned_nodes_are_equal(config: PlanConfig, given: frozenset[str]) -> Lines:
    plan = config.plan
    if plan.devices % plan.nodes:
        yield f"plan.devices={plan.devices} is the number on all nodes, and no multiple of plan.nodes={plan.nodes}"
    if plan.nodes == 1 and "plan.network_gbits" in given:
        yield "plan.network_gbits has no effect with plan.nodes=1"
    if plan.devices == 1 and "plan.link_gbytes" in given:
        yield "plan.link_gbytes has no effect with plan.devices=1"


PLAN = Verb(
    "plan",
    PlanConfig,
    # A planned run is often for another machine, so the rules about installed packages do not apply.
    (*RUN_RULES, planned_device_is_described_once, planned_nodes_are_equal),
    "qwenvl_train.verbs.plan.command:run",
    sweep="qwenvl_train.verbs.plan.sweep:run",
)
