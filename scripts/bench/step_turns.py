"""Time one optimizer step in all ways alternately, and check that they give the same loss, for `step.py`."""

import math

import step_ways
import torch
from job import Job, Trained
from step_ways import Way
from turns import ROUNDING, Taken, free, peak, reset_peak

from qwenvl_train.training.optim import build_optimizer, parameter_groups


def measure_steps(
    job: Job, trained: Trained, rounds: int
) -> tuple[dict[str, Taken], dict[str, list[int]], dict[str, str]]:
    """Return the measurements with the tokens of each way's micro-batches, and the reason if a way is missing."""
    ways, skipped = {"padded_sdpa": step_ways.padded(job, "sdpa")}, {}
    if reason := step_ways.no_flash(job):
        skipped["padded_flash"] = reason
    else:
        ways["padded_flash"] = step_ways.padded(job, "flash_attention_2")
    ways["packed"] = step_ways.packed(job)
    optimizer = build_optimizer(parameter_groups(trained.model, job.family, job.config), job.config.optim)
    taken = {name: Taken() for name in ways}
    for turn in range(1 + rounds):  # the first turn warms up
        for name in list(taken):
            try:
                _take_turn(job, trained, optimizer, ways[name], taken[name], counts=turn > 0)
            except torch.OutOfMemoryError:
                if name == "packed":
                    raise
                skipped[name] = "it runs out of memory"
                del taken[name]
            if name in skipped:
                optimizer.zero_grad()
                free(job)
    return taken, {name: way.tokens for name, way in ways.items()}, skipped


def _take_turn(
    job: Job, trained: Trained, optimizer: torch.optim.Optimizer, way: Way, taken: Taken, counts: bool
) -> None:
    parameters = [parameter for parameter in trained.model.parameters() if parameter.requires_grad]
    accumulation = job.config.train.accumulation
    way.prepare(trained)
    reset_peak(job)
    start = job.now()
    for first in range(0, len(way.micro_batches), accumulation):
        supervised = sum(contents.supervised for contents in job.contents[first : first + accumulation])
        total = torch.zeros((), device=job.device)
        for inputs in way.micro_batches[first : first + accumulation]:
            with trained.autocast():
                loss = way.loss(trained.model, inputs) / supervised
            loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(parameters, job.config.train.clip)
        optimizer.step()
        optimizer.zero_grad()
        if first == 0 and not counts:
            taken.first = {"loss": total.item(), "grad_norm": norm.item()}
    seconds = job.now() - start
    if counts:
        taken.seconds.append(seconds)
        taken.peak_bytes = max(taken.peak_bytes, peak(job))


def check_equal(job: Job, steps: dict[str, Taken], runs: dict[str, Taken], trl_learns: float | None) -> None:
    """Check that all ways give equal results, since a way that computes something else proves nothing."""
    rounding = ROUNDING[job.precision]
    expected = next(iter(steps.values())).first
    for name, taken in steps.items():
        assert math.isclose(taken.first["loss"], expected["loss"], rel_tol=rounding), (name, taken, expected)
        assert math.isclose(taken.first["grad_norm"], expected["grad_norm"], rel_tol=10 * rounding), (
            name,
            taken,
            expected,
        )
    for name, loss in (("ours", expected["loss"]), ("trl", trl_learns)):
        assert name not in runs or loss is None or math.isclose(runs[name].first["loss"], loss, rel_tol=rounding), (
            name,
            runs[name],
            loss,
        )
