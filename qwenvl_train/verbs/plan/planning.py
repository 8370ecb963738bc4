"""Report the steps, memory, arithmetic and time of a run before it, without loading weights or decoding media."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, replace
from pathlib import Path

from accelerate import PartialState
from huggingface_hub import constants, get_session
from transformers import PreTrainedConfig

from qwenvl_train.config.compose import Composed
from qwenvl_train.config.schema import TWO_MODELS, ModelConfig
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family
from qwenvl_train.model.build import refuse_what_experts_cannot
from qwenvl_train.model.components import COMPONENTS, Mode, mode_of
from qwenvl_train.model.flops import FlopCount
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.processor import load_processor
from qwenvl_train.model.stored_adapter import with_stored_lora
from qwenvl_train.reporting.stdout import print_json
from qwenvl_train.run.rows import make_renderer
from qwenvl_train.verbs.plan.memory import (
    GIB,
    Load,
    Memory,
    Sized,
    TracedPass,
    memory,
    sized,
    stored_features,
    traced_pass,
)
from qwenvl_train.verbs.plan.remedies import remedies
from qwenvl_train.verbs.plan.settings import PlanConfig
from qwenvl_train.verbs.plan.subject import Subject, precision_of
from qwenvl_train.verbs.plan.text import print_plan
from qwenvl_train.verbs.plan.workload import Workload, assumed, counted, scaled, streamed


def plan(composed: Composed[PlanConfig], subject: Subject) -> None:
    config, sizes = with_stored_lora(composed.config, composed.given), subject.architecture
    family, device = subject.family, subject.device
    refuse_what_experts_cannot(config, family)
    renderer, lacking = _renderer(config)
    if renderer and "plan.visual" in composed.given:
        raise UserError("plan.visual has no effect here: the rows of data.train can be counted.")
    modes = {component: mode_of(component, config) for component in COMPONENTS}
    looks, compares = not config.train.cache_vision, config.reference in TWO_MODELS
    count = FlopCount.of(sizes, modes, config.lora.rank, looks, compares)
    work = _workload(config, sizes, renderer, count)
    planner = _Planner(config, sizes, family, work.load, work.least)
    memory_ = planner.memory(config)
    room = device.gib * GIB
    fits = memory_.total <= room
    longest = work.dataset.longest if work.dataset else None
    found = [] if fits else remedies(config, longest, lambda changed: planner.memory(changed).total, room)
    pace = device.count * device.tflops * 1e12 * device.mfu
    seconds = sum(work.flops) / pace
    told = subject.as_dict() | {
        "components": [row.as_dict() for row in planner.sized(config).rows],
        "data": {"source": work.source, "files": list(work.descriptions), "lacking": lacking}
        | (asdict(work.dataset) if work.dataset else {"visual_share": config.plan.visual}),
        "stored_features": _stored(config, sizes, work, subject.precision),
        "rows_per_epoch": work.rows_per_epoch,
        "rows_per_step": work.rows_per_step,
        "row": {"batch_size": config.train.batch_size, "max_length": _room(config)},
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
        "flops_per_step": work.flops._asdict() | {"total": sum(work.flops)},
        "flops_per_epoch": _of_an_epoch(work, sum(work.flops)),
        "seconds_per_step": seconds,
        "seconds_per_epoch": _of_an_epoch(work, seconds),
        "seconds": None if work.steps is None else seconds * work.steps,
    }  # fmt: skip
    if config.output == "json":
        print_json(told)
    else:
        print_plan(told)


class _Planner:
    """An estimator of the memory of this run, and of the same run with other settings. It caches what it computes."""

    def __init__(self, config: PlanConfig, architecture: PreTrainedConfig, family: Family, load: Load, least: Load):
        self._config, self._architecture, self._family = config, architecture, family
        self._load, self._least = load, least
        self._sized: dict[str, Sized] = {}
        self._traced: dict[str, TracedPass] = {}

    def sized(self, config: PlanConfig) -> Sized:
        key = repr((_modes(config), config.model.quantize))
        if key not in self._sized:
            self._sized[key] = sized(self._architecture, self._family, config)
        return self._sized[key]

    def memory(self, config: PlanConfig) -> Memory:
        refuse_what_experts_cannot(config, self._family)
        load, precision = self.load_of(config), precision_of(config)
        sizes = self.sized(config)
        key = repr((_modes(config), config.deepspeed.stage > 0, load))
        if key not in self._traced:
            self._traced[key] = traced_pass(self._architecture, self._family, config, precision, load)
        devices = config.plan.devices
        return memory(sizes, self._traced[key], self._architecture, config, precision, devices)

    def load_of(self, config: PlanConfig) -> Load:
        """Return the load of the largest pass under `config`.

        Smaller passes hold less, but not less than the largest sample. With packing, some pack is assumed to be full.
        """
        share = _size(config) / _size(self._config)
        load = Load(*map(max, astuple(scaled(self._load, share)), astuple(self._least)))
        if config.data.packing and share < 1:
            load = replace(load, tokens=max(load.tokens, min(self._load.tokens, _size(config))))
        return load


def _modes(config: PlanConfig) -> list[Mode]:
    return [mode_of(component, config) for component in COMPONENTS]


def _size(config: PlanConfig) -> int:
    """Return a number that the tokens of a pass are proportional to."""
    return config.train.batch_size * (config.data.max_length or 1)


def _workload(
    config: PlanConfig, architecture: PreTrainedConfig, renderer: Renderer | None, count: FlopCount
) -> Workload:
    if renderer is None:
        return assumed(config, architecture, count)
    if config.data.streaming:
        return streamed(config, renderer, count)
    return counted(config, renderer, count, PartialState(cpu=True))


def _renderer(config: PlanConfig) -> tuple[Renderer | None, str | None]:
    """Return the renderer, or None and the reason if the tokenizer of a published checkpoint is not available."""
    try:
        with _hub_at_hand():
            family = load_family(config.model)
            return make_renderer(config, load_processor(config.model, family), family), None
    except UserError as error:
        if _is_local(config.model) or not isinstance(error.__cause__, OSError):
            raise
        return None, (
            f"The tokenizer of {config.model.path} is neither on this machine nor available from the hub, so tokens "
            "are not counted: the steps per epoch are not known, and packed rows are assumed to be full."
        )


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
    if not config.train.cache_vision or work.dataset is None:
        return None
    return stored_features(sizes, work.dataset.visual * sizes.vision_config.spatial_merge_size**2, precision)


def _is_local(model: ModelConfig) -> bool:
    return Path(model.path).expanduser().exists()


def _room(config: PlanConfig) -> int | None:
    return config.data.max_length if config.data.packing else None


def _of_an_epoch(work: Workload, step: float) -> float | None:
    return None if work.rows_per_epoch is None else step * work.rows_per_epoch / work.rows_per_step
