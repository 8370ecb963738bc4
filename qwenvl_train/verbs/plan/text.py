"""Print a plan on the terminal, short and aligned, with every assumption stated."""

from collections.abc import Iterator
from typing import Any

from qwenvl_train.reporting.progress import console_on, print_components
from qwenvl_train.reporting.wording import count, duration, many, percent

Told = dict[str, Any]
"""The plan as output=json prints it."""

_GIB = 2**30


def print_plan(told: Told) -> None:
    """Print the plan, except for its heading."""
    console = console_on()
    print_components(told["components"], console)
    for title, lines in (
        ("Data", _data(told)),
        ("Steps", _steps(told)),
        (f"Memory of each device, with {_pass(told)}", _memory(told)),
        ("Time", _time(told)),
    ):
        console.print(f"\n{title}", style="bold", markup=False, soft_wrap=True)
        for line in lines:
            console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print()
    for line in _verdict(told):
        console.print(line, markup=False, soft_wrap=True)


def _devices(told: Told) -> str:
    device = told["device"]
    name = f" {device['name']}" if device["name"] else ""
    return f"{device['count']} ×{name} with {device['gib']:g} GiB"


def _data(told: Told) -> Iterator[str]:
    data = told["data"]
    yield from data["files"]
    if data["source"] == "assumed":
        yield data["lacking"]
        yield (
            f"assumed: {percent(data['visual_share'])} of the tokens are visual (plan.visual), in pictures of the "
            "largest size, and all others are learned"
        )
        return
    if data["source"] == "head":
        yield "these rows stand for the rest of the stream"
    left_out = data["rows"] - data["samples"]
    yield (
        f"{many(data['samples'], 'sample')}, {count(data['tokens'])} tokens (longest sample {count(data['longest'])}), "
        f"{count(data['media'])} pictures and clips"
    )
    visual, learned = data["visual"] / data["tokens"], data["supervised"] / data["tokens"]
    yield f"{percent(visual)} of the tokens are visual, {percent(1 - visual)} text; {percent(learned)} are learned"
    if told["stored_features"] is not None:
        yield (
            f"train.cache_vision stores at most {_gib(told['stored_features'])} of vision features for them, before "
            "the first step; the tower is left out of all figures below but its weights"
        )
    if left_out:
        yield f"{many(left_out, 'row')} cannot be used and would be left out; qwenvl-train inspect … tells why"


def _steps(told: Told) -> Iterator[str]:
    size, room = told["row"]["batch_size"], told["row"]["max_length"]
    row = many(size, "sample") if room is None else f"{many(size, 'pack')} of up to {count(room)} tokens"
    passes = told["rows_per_step"]
    yield f"a step: {count(passes)} {'pass' if passes == 1 else 'passes'} of {row}"
    if told["pack_fill"] is not None:
        yield f"packs are {percent(told['pack_fill'])} full"
    if told["rows_per_epoch"] is not None:
        yield f"an epoch: {count(told['rows_per_epoch'])} of them"
    if told["steps"] is None:
        yield "how many steps an epoch has is not known; train.max_steps=… says how many to train"
    elif told["samples_per_step"] is None:
        yield many(told["steps"], "step")
    else:
        epochs = "" if told["epochs"] is None else f", {told['epochs']:.2f} epochs"
        yield f"{many(told['steps'], 'step')} of {told['samples_per_step']:,.4g} samples{epochs}"


def _pass(told: Told) -> str:
    most = told["largest_pass"]
    return f"a pass of {count(most['tokens'])} tokens, {count(most['visual'])} of them visual"


def _memory(told: Told) -> Iterator[str]:
    memory = told["memory"]
    stage, devices = told["deepspeed"], told["device"]["count"]
    shared = f", 1/{devices} of it here" if stage and devices > 1 else ""
    copies = ", with float32 copies of what is trained" if stage else ""
    checkpointing, loss = told["checkpointing"], _gib(memory["loss"])
    rows = [
        ("weights", memory["weights"], f"1/{devices} of them here" if stage == 3 and devices > 1 else ""),
        ("reference", memory["reference"], "a frozen copy of the weights, dpo.reference=model"),
        ("gradients", memory["gradients"], shared.removeprefix(", ")),
        ("optimizer state", memory["optimizer"], f"{told['optimizer']}{copies}{shared}"),
        ("exchange", memory["exchange"], "what devices send each other"),
        ("activations", memory["activations"], f"kept for the backward pass, train.checkpointing={checkpointing}"),
        ("on top of them", memory["work"], f"at the worst moment: {memory['moment']} (the loss takes {loss})"),
        ("CUDA and gaps", memory["reserve"], "allowed for"),
        ("all", memory["total"], f"of {told['device']['gib']:g} GiB"),
    ]  # fmt: skip
    shown = [row for row in rows if row[1]]
    wide = max(len(name) for name, *_ in shown)
    for name, size, note in shown:
        yield f"{name:<{wide}}  {_gib(size):>11}  {note}".rstrip()


def _gib(size: float) -> str:
    return f"{size / _GIB:,.1f} GiB" if size >= _GIB / 10 else f"{size / 2**20:,.1f} MiB"


def _time(told: Told) -> Iterator[str]:
    flops, device = told["flops_per_step"], told["device"]
    shares = ", ".join(
        f"{name} {percent(flops[key] / flops['total'])}"
        for key, name in (("vision", "vision tower"), ("mlp", "merger"), ("llm", "language model"))
    )
    yield f"{_operations(flops['total'])} in a step: {shares}"
    if told["flops_per_epoch"] is not None:
        yield f"{_operations(told['flops_per_epoch'])} in an epoch"
    yield (
        f"assumed: {percent(device['mfu'])} (plan.mfu) of {device['tflops']:g} TFLOPS on each device is used, "
        "and data comes in time"
    )
    parts = [f"a step {_seconds(told['seconds_per_step'])}"]
    parts += [f"an epoch {_seconds(told['seconds_per_epoch'])}"] if told["seconds_per_epoch"] is not None else []
    parts += [f"the run {_seconds(told['seconds'])}"] if told["seconds"] is not None else []
    yield "; ".join(parts)


def _seconds(seconds: float) -> str:
    if seconds < 0.01:
        return "less than 0.01 s"
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def _operations(flops: float) -> str:
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if flops >= size:
            return f"{flops / size:,.3g} {prefix}FLOP"
    return f"{flops / 1e6:,.3g} MFLOP"


def _verdict(told: Told) -> Iterator[str]:
    memory = told["memory"]
    if told["fits"]:
        yield f"fits on {_devices(told)}: {_gib(memory['total'])} of each"
        return
    yield f"does not fit on {_devices(told)}: it takes {_gib(memory['total'])} of each"
    for number, remedy in enumerate(told["remedies"]):
        yield f"{'it would' if number == 0 else 'or'} with: {remedy['words']} ({_gib(remedy['total'])})"
    if not told["remedies"]:
        yield "no change that is known here makes it fit"
