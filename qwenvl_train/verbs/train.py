"""The whole of a training run, read from top to bottom."""

import math
import shutil
import sys
from datetime import datetime
from pathlib import Path

import torch
from accelerate import PartialState
from rich.progress import Progress as Bar

from qwenvl_train.config.compose import Composed
from qwenvl_train.config.schema import RunConfig, Sources
from qwenvl_train.data.lengths import Lengths, measure_all
from qwenvl_train.data.loader import EvalRows, TrainRows
from qwenvl_train.data.render import Renderer
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.model.build import build_model
from qwenvl_train.model.components import component_table
from qwenvl_train.model.load import load_family, load_processor
from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.reporting.metrics import MetricsFile, read_metrics
from qwenvl_train.reporting.progress import Progress, console_on, print_components
from qwenvl_train.reporting.reporter import Reporter, Row, RunInfo
from qwenvl_train.reporting.wandb import WandbRun
from qwenvl_train.training.arguments import sft_arguments
from qwenvl_train.training.checkpoint import step_of
from qwenvl_train.training.interrupt import StopOnSignal
from qwenvl_train.training.meter import Meter
from qwenvl_train.training.processes import agree, choose_precision, join_processes
from qwenvl_train.training.recorder import Recorder
from qwenvl_train.training.resume import checkpoint_to_resume
from qwenvl_train.training.sft import Hooks, VisionSFTTrainer


def run(composed: Composed) -> None:
    config = composed.config
    state = join_processes(config)
    precision = choose_precision(config)
    reporters = _reporters(config, state)

    # What can be wrong with the user's input comes out here, before anything is written.
    family = load_family(config.model)
    processor = load_processor(config.model)
    renderer = Renderer(processor, family, f"model.path {config.model.path}")
    samples, lengths = _read(config.data.train, "data.train", renderer, config)
    held_out, _ = _read(config.data.eval, "data.eval", renderer, config) if config.data.eval else (None, None)
    samples_per_step = config.train.batch_size * config.train.accumulation * state.num_processes
    steps = config.train.max_steps or math.ceil((config.train.epochs or 0) * len(samples) / samples_per_step)
    if 1 <= config.train.warmup >= steps:
        raise UserError(f"train.warmup={config.train.warmup:.0f} steps are not below the {steps} steps of this run.")
    folder = Path(config.output_dir) / agree(state, config.run_name or _new_name(composed.recipe))
    facts = {
        "processes": state.num_processes,
        "precision_used": precision,
        "samples": len(samples),
        "tokens": int(lengths.tokens.sum()),
    }
    found = agree(state, str(checkpoint_to_resume(config, folder, facts) or ""))
    checkpoint = Path(found) if found else None
    start_step = step_of(checkpoint) if checkpoint else 0
    if state.is_main_process and checkpoint:
        print(f"{folder.name} goes on from {checkpoint}, step {start_step} of {steps}")
    if start_step >= steps:
        if state.is_main_process:
            print("nothing is left to do: this run is finished")
        return

    # ZeRO-3 shards the weights as they are read, so the trainer's arguments come before the model.
    staging = folder / ".staging"
    arguments = sft_arguments(config, staging, steps, precision, resumed=checkpoint is not None)
    model = build_model(config, family, processor, precision)
    table = [row.as_dict() for row in component_table(model, family, config)]
    info = RunInfo(folder.name, folder, config.model_dump(mode="json"), table, steps, start_step)
    recorder = Recorder(info, state.is_main_process, reporters, held_out, renderer, processor, checkpoint)
    stop = StopOnSignal()
    place = (state.process_index, state.num_processes)
    rows = TrainRows(samples, renderer, config.train.batch_size, config.seed)
    meter = Meter(lengths, samples_per_step, config.seed, start_step, _seconds_before(folder, start_step))
    trainer = VisionSFTTrainer(
        model=model,
        args=arguments,
        config=config,
        family=family,
        processing_class=processor,
        train_dataset=rows.as_dataset(steps * config.train.accumulation * state.num_processes),
        eval_rows=None if held_out is None else EvalRows(held_out, renderer, config.train.eval_batch_size, *place),
        meter=meter,
        checkpoints=folder / "checkpoints",
        hooks=Hooks(recorder.logged, recorder.evaluated, recorder.saved),
        callbacks=[stop],
    )
    stop.accelerator = trainer.accelerator

    if state.is_main_process:
        _open_folder(info, staging, facts)
        print(f"{family.name} from {config.model.path}, {precision}, {state.num_processes} process(es)")
        print(_about_data(samples, lengths, held_out, steps, samples_per_step))
        print_components(table)
    state.wait_for_everyone()
    recorder.start()
    meter.start()
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except UserError as error:
        stop.restore()
        error.on_every_process = False
        recorder.finish("failed", meter.totals(trainer.state.global_step), message_of(error))
        raise
    except BaseException as error:
        stop.restore()
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        recorder.finish(status, meter.totals(trainer.state.global_step), repr(error))
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


def _read(sources: Sources, key: str, renderer: Renderer, config: RunConfig) -> tuple[Samples, Lengths]:
    """Opens the files and checks every row in them; on a terminal, with a bar."""
    samples = Samples(sources, key)
    with Bar(console=console_on(), transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(f"checking {key}", total=len(samples))
        lengths = measure_all(samples, renderer, config.data.max_length, lambda done: bar.update(task, completed=done))
    return samples, lengths


def _reporters(config: RunConfig, state: PartialState) -> list[Reporter]:
    if not state.is_main_process:
        return []
    wandb = [] if config.logging.wandb.mode == "disabled" else [WandbRun(config.logging.wandb)]
    return [MetricsFile(), Progress(), *wandb]


def _new_name(recipe: str | None) -> str:
    return f"{Path(recipe or 'sft').name}-{datetime.now():%Y%m%d-%H%M%S}"


def _seconds_before(folder: Path, start_step: int) -> float:
    rows = [row for row in read_metrics(folder) if row["step"] <= start_step] if start_step else []
    return rows[-1]["seconds"] if rows else 0.0


def _open_folder(info: RunInfo, staging: Path, facts: Row) -> None:
    folder = RunFolder(info.folder)
    folder.write_config(info.config)
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    folder.write_environment(gpus, facts)
    folder.write_components(info.components)
    folder.write_skipped()
    # What a killed run was writing is no checkpoint.
    shutil.rmtree(staging, ignore_errors=True)


def _about_data(samples: Samples, lengths: Lengths, held_out: Samples | None, steps: int, per_step: int) -> str:
    tokens, longest = int(lengths.tokens.sum()), int(lengths.tokens.max())
    evaluated = f"; {len(held_out):,} samples held out" if held_out else ""
    return (
        f"{len(samples):,} samples, {tokens:,} tokens (longest sample {longest:,}), "
        f"{int(lengths.pictures.sum()):,} pictures{evaluated}\n"
        f"{steps:,} steps of {per_step:,} samples, {steps * per_step / len(samples):.2f} epochs"
    )
