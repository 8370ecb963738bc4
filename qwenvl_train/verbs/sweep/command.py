"""Trains the jobs of a sweep, one after another, each in a process of its own, and compares them."""

import os
import sys
from datetime import datetime
from pathlib import Path

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.config.sweep import Job, quoted
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.console import console_on, say
from qwenvl_train.reporting.wording import many
from qwenvl_train.verbs.sweep.process import start
from qwenvl_train.verbs.sweep.results import Result, is_finished, print_results, result_of, write_results

_OF_THE_SWEEP = ("output_dir", "run_name", "data.cache")
"""The settings that the sweep gives each of its runs."""


def run(jobs: list[Job[RunConfig]]) -> None:
    """Train all jobs, and exit with the code of the sweep. A job that fails does not end the sweep."""
    if "RANK" in os.environ:
        raise UserError("-m starts its runs one after another, which a launcher would do once for each process.")
    folder, console = _folder(jobs), console_on()
    say(console, f"sweep of {many(len(jobs), 'run')} in {folder}")
    results: list[Result] = []
    for number, job in enumerate(jobs, start=1):
        say(console, f"\n--- run {number} of {len(jobs)}: {job.name}")
        sys.stdout.flush()
        if is_finished(job, folder):
            say(console, "this run is already finished")
            results.append(result_of(job, folder))
        else:
            code, message = start(_command(job, folder))
            results.append(result_of(job, folder, code, message))
        write_results(folder, results)
        if results[-1].is_interrupted:
            break
    print_results(results, folder, console)
    if results[-1].is_interrupted:
        say(console, f"to continue the sweep: the same command with run_name={folder.name}")
    sys.stdout.flush()
    sys.exit(exit_code(results))


def exit_code(results: list[Result]) -> int:
    """Return the exit code of the sweep: that of an interrupted run, or else 1 if a run failed through an error in this
    project or was killed, or else 2 if a run failed."""
    if results[-1].is_interrupted:
        return results[-1].code
    failed = [result.code for result in results if result.code]
    return 0 if not failed else 2 if set(failed) == {2} else 1


def _folder(jobs: list[Job[RunConfig]]) -> Path:
    """Return the folder of the sweep, which run_name names."""
    places = {(job.composed.config.output_dir, job.composed.config.run_name) for job in jobs}
    if len(places) > 1:
        raise UserError("-m: the recipes of the sweep set different output_dir or run_name; give both as arguments.")
    ((output, name),) = places
    return Path(output) / (name or f"sweep-{datetime.now():%Y%m%d-%H%M%S}")


def _command(job: Job[RunConfig], folder: Path) -> list[str]:
    config = job.composed.config
    kept = [word for word in job.arguments if word.lstrip("+").partition("=")[0] not in _OF_THE_SWEEP]
    # All runs of output_dir share one cache, those of sweeps included.
    cache = config.data.cache or Path(config.output_dir) / ".cache"
    own: dict[str, str | Path] = {"output_dir": folder, "run_name": job.name, "data.cache": cache}
    return ["train", *kept, *(f"{key}={quoted(value)}" for key, value in own.items())]
