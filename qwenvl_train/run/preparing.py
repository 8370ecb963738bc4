"""Makes a run ready for its first step: what is computed before it, the model, the trainer and the recorder."""

from contextlib import suppress
from dataclasses import replace
from functools import partial

from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedModel

from qwenvl_train.config.entries import entry_names
from qwenvl_train.data.batches.loader import EvalRows
from qwenvl_train.model.build import (
    base_model,
    build_copy,
    build_model,
)
from qwenvl_train.model.components import component_table
from qwenvl_train.model.pretrained import load_config
from qwenvl_train.model.trainable import continued_adapter
from qwenvl_train.model.vision_features import with_shared_features
from qwenvl_train.planning.work import flop_count
from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.reporting.reporter import NO_FORECAST, Forecast, RunInfo
from qwenvl_train.run.broken_step_dumps import BrokenStepDumps
from qwenvl_train.run.context import RunContext
from qwenvl_train.run.forecast import forecast_of
from qwenvl_train.run.generated_scores import GeneratedScores
from qwenvl_train.run.lineage import lineage, with_merged_model
from qwenvl_train.run.opening import OpenedRun, RunData, StartingPoint
from qwenvl_train.run.recorder import Recorder
from qwenvl_train.run.reference_cache import store_references
from qwenvl_train.run.resume import progress_at
from qwenvl_train.run.shown_answers import ShownAnswers
from qwenvl_train.run.training_data import MeasuredData
from qwenvl_train.run.training_run import Run
from qwenvl_train.run.vision_cache import store_features
from qwenvl_train.step_folders import saved
from qwenvl_train.training.arguments import training_arguments
from qwenvl_train.training.devices import peak_tflops
from qwenvl_train.training.disk_space import checkpoint_bytes, refuse_full_disk
from qwenvl_train.training.distributed.store import call_on_main
from qwenvl_train.training.distributed.universal import UniversalCheckpoint, needs_conversion
from qwenvl_train.training.distributed.workers import naming_dead_workers
from qwenvl_train.training.distributed.zero import deepspeed_settings, empty, nvme_folder
from qwenvl_train.training.interrupt import StopOnSignal
from qwenvl_train.training.meter import Devices, Meter, RunProgress
from qwenvl_train.training.objectives.dpo import Preferences
from qwenvl_train.training.objectives.objective import Objective
from qwenvl_train.training.objectives.reference import none, of_copy, of_first_weights, stored, without_adapters
from qwenvl_train.training.objectives.sft import Answers
from qwenvl_train.training.patience import Patience
from qwenvl_train.training.rehearsal import Rehearsal
from qwenvl_train.training.save_by_time import SaveByTime
from qwenvl_train.training.skipped import Skipped
from qwenvl_train.training.trainer import VisionTrainer
from qwenvl_train.training.trainer_inputs import Hooks, TrainerData, TrainerRecords, TrainerSetup


def prepare(opened: OpenedRun) -> Run:
    """Return a run that is ready for its first step. This precomputes references and features, and creates the model,
    the trainer and the recorder."""
    data, start = opened.data, opened.start
    context, resumed = with_merged_model(opened.context, start.folder), start.checkpoint is not None
    config = context.config
    data.train.go_to(start.step * data.rows_per_step, start.checkpoint)
    before = progress_at(start.checkpoint) if start.checkpoint else RunProgress()
    problems = [*data.train.problems, *(data.held_out.lengths.problems if data.held_out else ())]
    fatal, list_file = config.data.on_error == "raise", start.folder / "skipped.jsonl"
    skipped = Skipped(problems, config.data.max_skipped, fatal, list_file, resumed)

    architecture = load_config(config.model)
    forecast = _forecast(context, data, architecture)
    # ZeRO-3 shards the weights while they are read, so the trainer's arguments must exist before the model.
    on_disk = nvme_folder(config.deepspeed, start.folder.name)
    empty(on_disk, context.state)
    universal = start.checkpoint is not None and needs_conversion(start.checkpoint, context.processes)
    deepspeed = deepspeed_settings(config.deepspeed, architecture, context.processes, on_disk, universal)
    arguments = training_arguments(config, start.staging, data.steps, context.precision, resumed, deepspeed)
    if config.reference == "cached":
        # Before the model is built, so that the model and its reference are never in memory at the same time.
        _use_stored_references(context, data, skipped)
    model = build_model(config, context.family, context.processor, context.precision)
    if config.train.cache_vision:
        _use_stored_features(context, data, base_model(model), skipped)
    table = [row.as_dict() for row in component_table(model, context.family, config)]
    each = checkpoint_bytes(table, config, context.precision)
    _refuse_full_disk(context, data, start, each)
    settings = start.config.model_dump(mode="json")
    origin, lengths = lineage(start.config, start.folder), data.train.length_histogram()
    info = RunInfo(start.folder.name, start.folder, settings, table, data.steps, start.step, origin, lengths, forecast)
    recorder = Recorder(
        info,
        context.is_main,
        opened.reporters,
        context.cpu_group,
        start.checkpoint,
        skipped,
    )
    if data.held_out:
        decoded = replace(data.held_out, renderer=context.renderer)
        if config.eval.generate:
            recorder.generated = GeneratedScores(context, decoded, RunFolder(start.folder))
        recorder.shown = ShownAnswers(context, decoded, recorder.generated)
    stop = StopOnSignal(context.cpu_group, config.train.grace_seconds)
    room = config.pack_length and config.pack_length * config.train.batch_size
    devices = Devices(context.processes, peak_tflops(context.precision))
    meter = Meter(data.train.counts, data.rows_per_step, room, devices, before)
    objective = _objective(context, model)
    trainer = VisionTrainer(
        model,
        arguments,
        TrainerSetup(config, context.family, context.processor, objective, context.cpu_group),
        TrainerData(
            data.train.dataset(data.steps * data.rows_per_step), data.train.stream, _eval_rows(context, data), skipped
        ),
        TrainerRecords(
            meter,
            flop_count(config, architecture),
            start.folder / "checkpoints",
            each,
            Hooks(recorder.logged, recorder.evaluated, recorder.written, recorder.saved, BrokenStepDumps(opened, each)),
        ),
    )
    if universal:
        trainer.add_callback(UniversalCheckpoint(start.universal, context.state, lambda: trainer.group_settings))
    trainer.add_callback(stop)
    if config.train.save_minutes:
        trainer.add_callback(SaveByTime(config.train.save_minutes, context.cpu_group))
    if config.train.rehearse:
        assert isinstance(data.train, MeasuredData)
        largest = partial(data.train.largest_rows, data.steps * data.rows_per_step)
        trainer.add_callback(Rehearsal(trainer, objective, meter, config.optim, largest))
    patience = Patience(config.train.best_metric, config.train.patience) if config.train.patience else None
    if patience:
        trainer.add_callback(patience)
    # The transformers Trainer has made an empty folder, and a run that is never trained leaves nothing.
    with suppress(OSError):
        start.staging.rmdir()
        start.folder.rmdir()
    return Run(context, data, start, model, trainer, recorder, meter, stop, skipped, patience)


def _forecast(context: RunContext, data: RunData, architecture: PreTrainedConfig) -> Forecast:
    """Return the forecast, which only the main process makes. All processes must call this together."""
    nodes = context.cpu_group.sum([int(context.state.is_local_main_process)])[0]
    return forecast_of(context, data, architecture, nodes) if context.is_main else NO_FORECAST


def _refuse_full_disk(context: RunContext, data: RunData, start: StartingPoint, each: int) -> None:
    """Raise UserError on all processes if the checkpoints of the run do not fit on the disk, as the main process sees
    it."""

    def check() -> None:
        existing = len(saved(start.folder / "checkpoints"))
        refuse_full_disk(start.folder, each, context.config, data.steps - start.step, existing)

    call_on_main(context.state, check)


def _use_stored_references(context: RunContext, data: RunData, skipped: Skipped) -> None:
    assert isinstance(data.train, MeasuredData)
    sources = {"data.train": data.train.rows} | ({"data.eval": data.held_out} if data.held_out else {})
    with naming_dead_workers():
        held = store_references(sources, context, skipped)
    data.train.rows, data.held_out = held["data.train"], held.get("data.eval")


def _use_stored_features(context: RunContext, data: RunData, model: PreTrainedModel, skipped: Skipped) -> None:
    assert isinstance(data.train, MeasuredData)
    rows = [data.train.rows, *([data.held_out] if data.held_out else [])]
    with naming_dead_workers():
        features = store_features(rows, model, context, skipped)
    data.train.rows = data.train.rows.with_features(features)
    data.held_out = data.held_out and data.held_out.with_features(features)


def _eval_rows(context: RunContext, data: RunData) -> EvalRows | None:
    if data.held_out is None:
        return None
    return EvalRows(data.held_out, context.config.train.eval_batch_size, context.rank, context.processes)


def _objective(context: RunContext, model: PreTrainedModel | PeftModel) -> Objective:
    config, family, processor = context.config, context.family, context.processor
    shared_features = (
        None if config.tuned("vision") else with_shared_features(base_model(model), family, processor.image_processor)
    )
    sources = entry_names(config.data.train) if len(config.data.train) > 1 else []
    preferences = partial(Preferences, config.dpo, sources=sources)
    match config.reference:
        case None:
            return Answers(sources)
        case "adapter":
            assert isinstance(model, PeftModel)
            before = of_first_weights if continued_adapter(config) else without_adapters
            return preferences(lambda _: before(model), shared_features)
        case "model":
            copy = build_copy(config, family, processor, context.precision)
            return preferences(lambda accelerator: of_copy(copy, accelerator), shared_features)
        case "cached":
            return preferences(lambda _: stored)
        case "none":
            return preferences(lambda _: none)
