"""The whole of a training run, read from top to bottom."""

import shutil
import sys
from datetime import datetime
from pathlib import Path

import torch
from accelerate import PartialState
from peft import PeftModel
from transformers import PreTrainedModel

from qwenvl_train.config.compose import Composed
from qwenvl_train.config.schema import TWO_MODELS, RunConfig
from qwenvl_train.data.loader import EvalRows
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.families.family import Family
from qwenvl_train.model.attention import refuse_kernel
from qwenvl_train.model.build import (
    about_fp16,
    about_liger,
    base_model,
    build_copy,
    build_model,
    refuse_what_needs_a_gpu,
    suggest_liger,
)
from qwenvl_train.model.components import COMPONENTS, component_table, mode_of
from qwenvl_train.model.flops import FlopCount
from qwenvl_train.model.processor import load_processor
from qwenvl_train.model.vision_features import with_shared_features
from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.reporting.metrics import MetricsFile
from qwenvl_train.reporting.progress import ProgressReporter, print_components
from qwenvl_train.reporting.reporter import Reporter, Row, RunInfo
from qwenvl_train.reporting.wandb import WandbRun
from qwenvl_train.run.recorder import Recorder
from qwenvl_train.run.reference_cache import store_references
from qwenvl_train.run.resume import checkpoint_to_resume, progress_at
from qwenvl_train.run.rows import make_renderer, open_rows
from qwenvl_train.run.training_data import MeasuredData, open_training_data
from qwenvl_train.run.vision_cache import store_features
from qwenvl_train.training.arguments import training_arguments
from qwenvl_train.training.checkpoint import step_of
from qwenvl_train.training.cpu_group import CpuGroup
from qwenvl_train.training.devices import peak_tflops
from qwenvl_train.training.dpo import Preferences
from qwenvl_train.training.interrupt import StopOnSignal
from qwenvl_train.training.meter import Devices, Meter, RunProgress
from qwenvl_train.training.objective import Objective
from qwenvl_train.training.processes import agree
from qwenvl_train.training.reference import none, of_copy, stored, without_adapters
from qwenvl_train.training.sft import Answers
from qwenvl_train.training.skipped import Skipped, UnusableRows
from qwenvl_train.training.trainer import Hooks, VisionTrainer
from qwenvl_train.training.workers import naming_dead_workers


def train(composed: Composed, family: Family, precision: str, state: PartialState) -> None:
    config = composed.config
    refuse_kernel(config.train.attention, precision)
    refuse_what_needs_a_gpu(config)
    reporters = _reporters(config, state)

    # What can be wrong with the user's input comes out here, before anything is written.
    processor = load_processor(config.model)
    renderer = make_renderer(config, processor, family)
    data = open_training_data(config, renderer, state)
    held_out = open_rows(config, "data.eval", renderer, state) if config.data.eval else None
    rows_per_step = config.train.accumulation * state.num_processes
    steps = data.steps(rows_per_step)
    folder = Path(config.output_dir) / agree(state, config.run_name or _new_name(composed.recipe, config.method))
    facts = {"processes": state.num_processes, "precision_used": precision} | data.facts
    found = agree(state, str(checkpoint_to_resume(config, folder, facts) or ""))
    checkpoint = Path(found) if found else None
    start_step = step_of(checkpoint) if checkpoint else 0
    if state.is_main_process and checkpoint:
        print(f"{folder.name} goes on from {checkpoint}, step {start_step} of {steps}")
    if start_step >= steps:
        if state.is_main_process:
            print("nothing is left to do: this run is finished")
        return
    data.go_to(start_step * rows_per_step, checkpoint)
    before = progress_at(checkpoint) if checkpoint else RunProgress()
    problems = [*data.problems, *(held_out.lengths.problems if held_out else ())]
    fatal, list_file = config.data.on_error == "raise", folder / "skipped.jsonl"
    skipped = Skipped(problems, config.data.max_skipped, fatal, list_file, resumed=checkpoint is not None)

    # ZeRO-3 shards the weights as they are read, so the trainer's arguments come before the model.
    staging = folder / ".staging"
    arguments = training_arguments(config, staging, steps, precision, resumed=checkpoint is not None)
    cpu_group = CpuGroup(state.num_processes)
    if config.reference == "cached":
        # Before the model, so that both are never in memory at once.
        assert isinstance(data, MeasuredData)
        sources = {"data.train": data.rows} | ({"data.eval": held_out} if held_out else {})
        with naming_dead_workers():
            held = store_references(
                sources, config, family, processor, precision, arguments.device, state.process_index, cpu_group, skipped
            )
        data.rows, held_out = held["data.train"], held.get("data.eval")
    model = build_model(config, family, processor, precision)
    if config.train.cache_vision:
        assert isinstance(data, MeasuredData)
        rows = [data.rows, *([held_out] if held_out else [])]
        with naming_dead_workers():
            features = store_features(
                rows, base_model(model), family, config, precision, processor, arguments.device, state.process_index,
                cpu_group, skipped,
            )  # fmt: skip
        data.rows = data.rows.reading(features)
        held_out = held_out and held_out.reading(features)
    table = [row.as_dict() for row in component_table(model, family, config)]
    info = RunInfo(folder.name, folder, config.model_dump(mode="json"), table, steps, start_step)
    recorder = Recorder(info, state.is_main_process, reporters, held_out, renderer, processor, checkpoint, skipped)
    stop = StopOnSignal(cpu_group)
    place = (state.process_index, state.num_processes)
    room = config.data.max_length * config.train.batch_size if config.data.packing and config.data.max_length else None
    meter = Meter(data.counts, rows_per_step, room, Devices(state.num_processes, peak_tflops(precision)), before)
    objective = _objective(config, model, family, processor, precision)
    modes = {component: mode_of(component, config) for component in COMPONENTS}
    count = FlopCount.of(
        base_model(model).config, modes, config.lora.rank, not config.train.cache_vision, config.reference in TWO_MODELS
    )
    trainer = VisionTrainer(
        model=model,
        args=arguments,
        config=config,
        family=family,
        objective=objective,
        processing_class=processor,
        train_dataset=data.dataset(steps * rows_per_step),
        stream=data.stream,
        eval_rows=None if held_out is None else EvalRows(held_out, config.train.eval_batch_size, *place),
        meter=meter,
        flops=count,
        cpu_group=cpu_group,
        skipped=skipped,
        checkpoints=folder / "checkpoints",
        hooks=Hooks(recorder.logged, recorder.evaluated, recorder.saved),
        callbacks=[stop],
    )

    state.wait_for_everyone()  # all have read what the folder held
    if state.is_main_process:
        _open_folder(info, staging, facts)
        skipped.write()
        print(data.about(held_out, steps, rows_per_step))
        print_components(table)
        if config.train.liger:
            print(about_liger(model, family))
        for line in (suggest_liger(config), about_fp16(config, precision)):
            if line:
                print(line)
    state.wait_for_everyone()
    recorder.start()
    meter.start()
    try:
        with naming_dead_workers():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except UserError as error:
        stop.restore()
        error.on_every_process = isinstance(error, UnusableRows)
        recorder.finish("failed", meter.totals(max(trainer.state.global_step, start_step)), message_of(error))
        raise
    except BaseException as error:
        stop.restore()
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        recorder.finish(status, meter.totals(max(trainer.state.global_step, start_step)), repr(error))
        raise
    cut_short = stop.received is not None and trainer.state.global_step < steps
    report = recorder.finish("interrupted" if cut_short else "done", meter.totals(trainer.state.global_step))
    if state.is_main_process:
        shutil.rmtree(staging, ignore_errors=True)
        print(f"checkpoint  {recorder.checkpoint}\nreport      {report}")
        if cut_short:
            print(f"to go on: the same command with run_name={folder.name}")
    state.wait_for_everyone()  # a launcher that sees one process end in a hurry ends the others
    stop.restore()
    if stop.received is not None and cut_short:
        sys.exit(128 + stop.received)


def _objective(
    config: RunConfig, model: PreTrainedModel | PeftModel, family: Family, processor, precision: str
) -> Objective:
    look = (
        None if config.tuned("vision") else with_shared_features(base_model(model), family, processor.image_processor)
    )
    match config.reference:
        case None:
            return Answers()
        case "adapter":
            assert isinstance(model, PeftModel)
            return Preferences(config.dpo, lambda _: without_adapters(model), look)
        case "model":
            copy = build_copy(config, family, processor, precision)
            return Preferences(config.dpo, lambda accelerator: of_copy(copy, accelerator), look)
        case "cached":
            return Preferences(config.dpo, lambda _: stored)
        case "none":
            return Preferences(config.dpo, lambda _: none)


def _reporters(config: RunConfig, state: PartialState) -> list[Reporter]:
    if not state.is_main_process:
        return []
    wandb = [] if config.logging.wandb.mode == "disabled" else [WandbRun(config.logging.wandb)]
    return [MetricsFile(), ProgressReporter(), *wandb]


def _new_name(recipe: str | None, method: str) -> str:
    return f"{Path(recipe or method).name}-{datetime.now():%Y%m%d-%H%M%S}"


def _open_folder(info: RunInfo, staging: Path, facts: Row) -> None:
    folder = RunFolder(info.folder)
    folder.write_config(info.config)
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    folder.write_environment(gpus, facts)
    folder.write_components(info.components)
    # What a killed run was writing is no checkpoint.
    shutil.rmtree(staging, ignore_errors=True)
