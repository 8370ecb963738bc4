"""Command-line options of the training benchmarks, and what runs before and after each measurement."""

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import results
import torch
from datasets import disable_progress_bars
from job import Job, make_job
from transformers.utils import logging
from workload import Workload

from qwenvl_train.errors import UserError, message_of
from qwenvl_train.training.devices import peak_tflops

PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "pillow", "numpy")


def make_parser(doc: str | None, workload: Workload, on_gpu: int, on_cpu: int) -> argparse.ArgumentParser:
    # On a GPU a sample has about 900 tokens, so that a micro-batch has about as many as a packed row of
    # data.max_length.
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="an entry of configs/model")
    parser.add_argument(f"--{workload.unit}", dest="samples", type=int, default=on_gpu if gpu else on_cpu)
    parser.add_argument("--batch-size", type=int, default=8 if gpu else 4, help=f"{workload.unit} in a micro-batch")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches in a step")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many turns")
    parser.add_argument(
        "--workers", type=int, default=8 if gpu else 0, help="processes that prepare data in whole runs on a GPU"
    )
    parser.add_argument("--peak-tflops", type=float, help="what the device can do, for MFU where it is not known here")
    results.add_output(parser)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the run, as for qwenvl-train")
    return parser


def run(
    given: argparse.Namespace,
    recipe: str,
    workload: Workload,
    measure: Callable[[Job, int, Path, float | None], dict[str, Any]],
) -> dict[str, Any]:
    """Run `measure` and write its result with the machine's data. It gets the number of rounds, a folder for files and
    the device's peak."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    logging.set_verbosity_error()
    disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)
    with tempfile.TemporaryDirectory() as folder:
        try:
            job = make_job(
                Path(folder),
                given.model,
                recipe,
                workload,
                given.samples,
                given.batch_size,
                given.accumulation,
                given.workers,
                given.settings,
            )
        except UserError as error:
            raise SystemExit(message_of(error)) from None
        peak = given.peak_tflops or peak_tflops(job.precision)
        result = measure(job, given.rounds, Path(folder), peak)
    gpus = [torch.cuda.get_device_name()] if job.device.type == "cuda" else []
    return result | results.surroundings(PACKAGES, ("cpu", "cores", "memory_gib", "gpus"), gpus)
