"""Report the steps, memory, arithmetic and time of a run before it, without loading weights or decoding media."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from huggingface_hub import constants, get_session
from transformers import PreTrainedConfig

from qwenvl_train.config.compose import Composed
from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.data.order.step_size import StepSize
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family
from qwenvl_train.model.build import refuse_what_experts_cannot
from qwenvl_train.model.flops import FlopCount
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.processor import load_processor
from qwenvl_train.model.stored_adapter import with_stored_lora
from qwenvl_train.planning.memory import GIB, Load, stored_features
from qwenvl_train.planning.planner import Planner
from qwenvl_train.planning.work import flop_count
from qwenvl_train.run.rows import make_renderer
from qwenvl_train.verbs.plan.estimate import LATIN, OTHER, estimating_renderer
from qwenvl_train.verbs.plan.remedies import lower_stage, remedies
from qwenvl_train.verbs.plan.settings import PlanConfig
from qwenvl_train.verbs.plan.subject import Subject
from qwenvl_train.verbs.plan.workload import Workload, counted, scaled, streamed


def plan(composed: Composed[PlanConfig], subject: Subject) -> dict[str, Any]:
    """Return the plan, as output=json prints it."""
    config, sizes = with_stored_lora(composed.config, composed.given), subject.architecture
    family, device = subject.family, subject.device
    refuse_what_experts_cannot(config, family)
    renderer, lacking = _renderer(config, family, sizes)
    count = flop_count(config, sizes)
    work = _workload(config if lacking is None else _with_long_rows(config), renderer, count)
    config = StepSize.of(work.config).in_config(config)
    planner, loads = Planner(sizes, family, subject.precision), _Loads(config, work.load, work.least)
    flops, room = sum(work.flops), device.gib * GIB

    def takes(changed: PlanConfig) -> int:
        return planner.memory(changed, loads.of(changed), changed.plan.devices).total

    def waits(changed: PlanConfig) -> float:
        return planner.step_time(changed, flops, device).sent.waiting

    memory_ = planner.memory(config, loads.of(config), device.count)
    fits = memory_.total <= room
    found = [] if fits else remedies(config, work.dataset.longest, takes, room)
    time = planner.step_time(config, flops, device)
    faster = lower_stage(config, takes, room, waits)
    return subject.as_dict() | {
        "components": [row.as_dict() for row in planner.sized(config).rows],
        "data": {"source": work.source, "files": list(work.descriptions), "estimated": lacking}
        | asdict(work.dataset),
        "stored_features": _stored(config, sizes, work, subject.precision),
        "rows_per_epoch": work.rows_per_epoch,
        "rows_per_step": work.rows_per_step,
        "row": {"batch_size": config.train.batch_size, "max_length": config.pack_length},
        "fitted": work.fitted,
        "steps": work.steps,
        "samples_per_step": work.samples_per_step,
        "epochs": work.epochs,
        "pack_fill": work.fill,
        "largest_pass": asdict(work.load) | {"visual": work.load.patches // sizes.vision_config.spatial_merge_size**2},
        "checkpointing": config.train.checkpointing,
        "deepspeed": config.deepspeed.stage,
        "optimizer": config.optim.name,
        "memory": memory_.as_dict(),
        "fits": fits,
        "remedies": [{"words": remedy.words, "total": remedy.total} for remedy in found],
        "flops_per_step": work.flops._asdict() | {"total": flops},
        "flops_per_epoch": _of_an_epoch(work, flops),
        "communication": time.sent.as_dict(),
        "lower_stage": faster
        and {"words": faster.words, "total": faster.total, "waiting": waits(faster.config)},
        "computing_per_step": time.computing,
        "seconds_per_step": time.seconds,
        "seconds_per_epoch": _of_an_epoch(work, time.seconds),
        "seconds": None if work.steps is None else time.seconds * work.steps,
    }  # fmt: skip


class _Loads:
    """The load of the largest pass, also under other settings than those of the run."""

    def __init__(self, config: PlanConfig, load: Load, least: Load):
        self._config, self._load, self._least = config, load, least

    def of(self, config: PlanConfig) -> Load:
        """Return the load of the largest pass under `config`.

        Smaller passes hold less, but not less than the largest sample. With packing, some pack is assumed to be full.
        """
        share = _size(config) / _size(self._config)
        load = scaled(self._load, share).at_least(self._least)
        if config.data.packing and share < 1:
            load = replace(load, tokens=max(load.tokens, min(self._load.tokens, _size(config))))
        return load


def _size(config: PlanConfig) -> int:
    """Return a number that the tokens of a pass are proportional to."""
    return config.train.batch_size * (config.pack_length or config.data.max_length or 1)


def _workload(config: PlanConfig, renderer: Renderer, count: FlopCount) -> Workload:
    if config.data.streaming:
        return streamed(config, renderer, count)
    return counted(config, renderer, count, PartialState(cpu=True))


def _renderer(config: PlanConfig, family: Family, sizes: PreTrainedConfig) -> tuple[Renderer, str | None]:
    """Return the renderer. If the tokenizer of a published checkpoint is not available, return one that estimates, and
    what it estimates."""
    try:
        with _hub_at_hand():
            own = load_family(config.model)
            return make_renderer(config, load_processor(config.model, own), own), None
    except UserError as error:
        if _is_local(config.model) or not isinstance(error.__cause__, OSError):
            raise
        return estimating_renderer(config, family, sizes), (
            f"estimated: the tokenizer of {config.model.path} is neither on this machine nor available from the hub, "
            f"so {LATIN} characters of text count as one token ({OTHER} if they are not ASCII); the visual tokens are "
            "exact, and all other figures of tokens, steps and time depend on this estimate"
        )


def _with_long_rows(config: PlanConfig) -> PlanConfig:
    """Return a configuration in which rows over data.max_length are left out, since their length is an estimate."""
    long = {} if config.data.too_long == "downscale" else {"too_long": "skip"}
    return config.model_copy(update={"data": config.data.model_copy(update={**long, "max_skipped": sys.maxsize})})


@contextmanager
def _hub_at_hand() -> Iterator[None]:
    """Set the hub's client to offline mode if there is no network.

    Otherwise the client would retry for minutes. Files in its cache are available offline.
    """
    offline = constants.HF_HUB_OFFLINE
    try:
        if not offline:
            get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # any error that the client's transport raises
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _stored(config: PlanConfig, sizes: PreTrainedConfig, work: Workload, precision: str) -> int | None:
    """Return the bytes of features that train.cache_vision stores for data.train.

    A picture that several samples use is counted in each of them.
    """
    if not config.train.cache_vision:
        return None
    return stored_features(sizes, work.dataset.visual * sizes.vision_config.spatial_merge_size**2, precision)


def _is_local(model: ModelConfig) -> bool:
    return Path(model.path).expanduser().exists()


def _of_an_epoch(work: Workload, step: float) -> float | None:
    return None if work.rows_per_epoch is None else step * work.rows_per_epoch / work.rows_per_step
