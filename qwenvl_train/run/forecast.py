"""What `qwenvl-train plan` would tell of a run at its start, from the data that the run has measured."""

from collections.abc import Iterable
from time import monotonic
from typing import TypeVar

import torch
from transformers import PreTrainedConfig

from qwenvl_train.planning.device import PlannedDevice, assumptions
from qwenvl_train.planning.memory import GIB
from qwenvl_train.planning.planner import Planner
from qwenvl_train.planning.work import flop_count, flops_of_step, largest_pass, largest_sample, looked_at
from qwenvl_train.reporting.reporter import NO_FORECAST, Forecast
from qwenvl_train.run.context import RunContext
from qwenvl_train.run.opening import RunData
from qwenvl_train.run.training_data import MeasuredData
from qwenvl_train.training.devices import this_device

_SECONDS = 2.0
"""The time in which some samples must be laid out, without which there is no forecast of the time of a step. The media
of a row may be slow to open."""
Item = TypeVar("Item")


def forecast_of(context: RunContext, data: RunData, architecture: PreTrainedConfig, nodes: int) -> Forecast:
    """Return the forecast of a run on this kind of GPU, with the assumptions of configs/plan.yaml.

    There is none for a stream, without a GPU, and for the time on a GPU whose speed is not known. It builds a model
    without weights, and must come before DeepSpeed shards the weights of every model that is built.
    """
    if not isinstance(data.train, MeasuredData) or not has_gpu():
        return NO_FORECAST
    try:
        return _forecast(context, data, data.train, architecture, nodes)
    except Exception:  # whatever it is: a run does not need a forecast
        return NO_FORECAST


def has_gpu() -> bool:
    return torch.cuda.is_available()


def _forecast(
    context: RunContext, data: RunData, train: MeasuredData, architecture: PreTrainedConfig, nodes: int
) -> Forecast:
    config, lengths = context.config, train.rows.lengths
    planner = Planner(architecture, context.family, context.precision)
    most, least = largest_pass(lengths, train.counts), largest_sample(lengths)
    memory = planner.memory(config, most.at_least(least), context.processes)
    step_seconds, device = None, _device(context, nodes)
    looked = within(_SECONDS, looked_at(train.rows, train.counts))
    if device and looked is not None:
        tokens = train.counts.seen(data.steps * data.rows_per_step).tokens / data.steps
        flops = flops_of_step(flop_count(config, architecture), looked, tokens)
        step_seconds = planner.step_time(config, flops.total, device).seconds
    return Forecast(step_seconds, memory.total / GIB)


def within(seconds: float, items: Iterable[Item]) -> list[Item] | None:
    """Return the items, or None if it takes longer to make them."""
    end, found = monotonic() + seconds, []
    for item in items:
        found.append(item)
        if monotonic() > end:
            return None
    return found


def _device(context: RunContext, nodes: int) -> PlannedDevice | None:
    """Return the devices of the run, or None if their speed is not known."""
    known, assumed = this_device(), assumptions()
    if known is None or context.precision == "fp32":  # the known speeds are those of 16 bits
        return None
    return PlannedDevice(
        name=None,
        count=context.processes,
        nodes=nodes,
        gib=known.gib,
        tflops=known.tflops,
        mfu=assumed.mfu,
        link_gbytes=known.link_gbytes,
        network_gbits=assumed.network_gbits,
    )
