"""Print a plan on the terminal, short and aligned, with every assumption stated."""

from collections.abc import Iterator
from math import ceil
from typing import Any

from rich.text import Text

from qwenvl_train.reporting.console import console_on, say
from qwenvl_train.reporting.progress import print_components
from qwenvl_train.reporting.wording import count, duration, many, percent

PlanDict = dict[str, Any]
"""The plan as output=json prints it."""

_GIB = 2**30
_NOTICED = 0.1
"""Share of a step from which on waiting for communication is worth a line."""


def print_plan(plan: PlanDict) -> None:
    """Print the plan, except for its heading."""
    console = console_on()
    print_components(plan["components"], console)
    for title, lines in (
        ("Data", _data(plan)),
        ("Steps", _steps(plan)),
        (f"Memory of each device, with {_pass(plan)}", _memory(plan)),
        *((("Communication", _communication(plan)),) if plan["device"]["count"] > 1 else ()),
        ("Time", _time(plan)),
    ):
        say(console, Text(f"\n{title}", "bold"))
        for line in lines:
            say(console, f"  {line}", hanging=4)
    say(console, "")
    for line in _verdict(plan):
        say(console, line, hanging=4)


def print_plans(plans: list[PlanDict]) -> None:
    """Print the plans of a sweep, one line for each. A plan that could not be made has its reason as `problem`."""
    console = console_on()
    for plan in plans:
        told = plan["problem"] if "problem" in plan else ", ".join(_in_short(plan))
        say(console, f"{plan['job']}: {told}", hanging=4)


def _in_short(plan: PlanDict) -> Iterator[str]:
    yield f"{'fits' if plan['fits'] else 'does not fit'} on {_devices(plan)}: {_gib(plan['memory']['total'])} of each"
    if plan["steps"] is not None:
        yield f"{many(plan['steps'], 'step')} in {_seconds(plan['seconds'])}"
    yield from (f"it fits with {remedy['words']}" for remedy in plan["remedies"][:1])


def _devices(plan: PlanDict) -> str:
    device = plan["device"]
    name = f" {device['name']}" if device["name"] else ""
    nodes = f" on {device['nodes']} nodes" if device["nodes"] > 1 else ""
    return f"{device['count']} ×{name} with {device['gib']:g} GiB{nodes}"


def _data(plan: PlanDict) -> Iterator[str]:
    data = plan["data"]
    yield from data["files"]
    if data["estimated"]:
        yield data["estimated"]
    if data["source"] == "head":
        yield "assumed: the rest of the stream is like these rows"
    left_out = data["rows"] - data["samples"]
    about = "about " if data["estimated"] else ""
    yield (
        f"{many(data['samples'], 'sample')}, {about}{count(data['tokens'])} tokens "
        f"(longest sample {count(data['longest'])}), {count(data['media'])} images and videos"
    )
    visual, learned = data["visual"] / data["tokens"], data["supervised"] / data["tokens"]
    yield f"{percent(visual)} of the tokens are visual, {percent(1 - visual)} text; {percent(learned)} are supervised"
    if plan["stored_features"] is not None:
        yield (
            f"train.cache_vision stores at most {_gib(plan['stored_features'])} of vision features for them before "
            "the first step; the figures below count only the weights of the vision tower"
        )
    if left_out and data["estimated"]:
        yield f"{many(left_out, 'row')} cannot be used, or may be longer than data.max_length, and are not counted"
    elif left_out:
        yield f"{many(left_out, 'row')} cannot be used and would be left out; qwenvl-train inspect … lists the reasons"


def _steps(plan: PlanDict) -> Iterator[str]:
    size, room = plan["row"]["batch_size"], plan["row"]["max_length"]
    row = many(size, "sample") if room is None else f"{many(size, 'packed row')} of up to {count(room)} tokens"
    passes, devices = plan["rows_per_step"], plan["device"]["count"]
    shared = f", {passes // devices} on each of {devices} devices, each" if devices > 1 else ""
    yield f"a step has {many(passes, 'micro-batch')}{shared} of {row}"
    if plan["fitted"]:
        yield plan["fitted"]
    if plan["pack_fill"] is not None:
        yield f"packed rows are {percent(plan['pack_fill'])} filled"
    if plan["rows_per_epoch"] is not None:
        yield f"an epoch has {many(plan['rows_per_epoch'], 'micro-batch')}"
    if plan["steps"] is None:
        yield "the number of steps is not known; set it with train.max_steps"
    elif plan["samples_per_step"] is None:
        yield many(plan["steps"], "step")
    else:
        epochs = "" if plan["epochs"] is None else f", {plan['epochs']:.2f} epochs"
        samples = "1 sample" if plan["samples_per_step"] == 1 else f"{plan['samples_per_step']:,.4g} samples"
        yield f"{many(plan['steps'], 'step')} of {samples}{epochs}"


def _pass(plan: PlanDict) -> str:
    most = plan["largest_pass"]
    return f"a micro-batch of {count(most['tokens'])} tokens, {count(most['visual'])} of them visual"


def _memory(plan: PlanDict) -> Iterator[str]:
    memory = plan["memory"]
    stage, devices = plan["deepspeed"], plan["device"]["count"]
    each = f"1/{devices} on each device"
    shared = f", {each}" if stage and devices > 1 else ""
    copies = ", with float32 copies of the trained weights" if stage else ""
    checkpointing, loss = plan["checkpointing"], _gib(memory["loss"])
    rows = [
        ("weights", memory["weights"], each if stage == 3 and devices > 1 else ""),
        ("reference", memory["reference"], "a frozen copy of the weights, dpo.reference=model"),
        ("gradients", memory["gradients"], each if stage > 1 and devices > 1 else ""),
        ("optimizer state", memory["optimizer"], f"{plan['optimizer']}{copies}{shared}"),
        ("communication", memory["exchange"], "buffers for gradients and weights"),
        ("activations", memory["activations"], f"stored for the backward pass, train.checkpointing={checkpointing}"),
        ("temporary", memory["work"], f"at the peak: {memory['moment']} (the loss takes {loss})"),
        ("CUDA", memory["reserve"], "with fragmentation; an estimate"),
        ("total", memory["total"], f"of {plan['device']['gib']:g} GiB"),
        ("host memory", memory["host"], "of each process, for what is kept there instead of on the device"),
    ]  # fmt: skip
    shown = [row for row in rows if row[1]]
    wide = max(len(name) for name, *_ in shown)
    for name, size, note in shown:
        yield f"{name:<{wide}}  {_gib(size):>11}  {note}".rstrip()


def _gib(size: float) -> str:
    return f"{size / _GIB:,.1f} GiB" if size >= _GIB / 10 else f"{size / 2**20:,.1f} MiB"


def _communication(plan: PlanDict) -> Iterator[str]:
    device, sent = plan["device"], plan["communication"]
    passes = plan["rows_per_step"] // device["count"]
    rows = [(it["operation"], it["sent"], f"{it['content']}, {_when(it, passes)}") for it in sent["exchanges"]]
    for name, size, note in [*rows, ("total", sent["sent"], "that each device sends in a step")]:
        yield f"{name:<14}  {_gb(size):>11}  {note}"
    between = f", and {device['network_gbits']:g} Gbit/s (plan.network_gbits) between nodes"
    yield (
        f"assumed: {device['link_gbytes']:g} GB/s (plan.link_gbytes) between devices"
        f"{' of a node' + between if device['nodes'] > 1 else ''}"
    )
    yield (
        f"sending takes {_seconds(sent['seconds'])} of a step, and devices wait for {_seconds(sent['waiting'])} of it; "
        f"computing takes {_seconds(plan['computing_per_step'])}"
    )
    if sent["hidden_from"]:
        speed = f"{sent['hidden_from'] / 1e9:,.1f} GB/s"
        if device["nodes"] > 1:
            speed = f"{8 * sent['hidden_from'] / 1e9:,.0f} Gbit/s between nodes"
        yield f"from {speed} on, computing hides all but what is sent after the step"
    if sent["waiting"] > _NOTICED * plan["seconds_per_step"]:
        yield from _less_waiting(plan, passes)


def _gb(size: float) -> str:
    """Return bytes in decimal units, which the speeds of connections have, too."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 / 10 else f"{size / 1e6:,.1f} MB"


def _when(exchange: dict[str, Any], passes: int) -> str:
    match exchange["phase"]:
        case "after":
            return "after the step"
        case "forward":
            return "in each forward pass"
        case _:
            return "in each backward pass" if exchange["times"] == passes else "in the last backward pass of a step"


def _less_waiting(plan: PlanDict, passes: int) -> Iterator[str]:
    waiting, computing = plan["communication"]["waiting"], plan["computing_per_step"]
    if waiting > computing:
        yield "communication is the limit: devices wait longer than they compute"
    if plan["deepspeed"] < 2:
        enough = ceil((1 / _NOTICED - 1) * waiting * passes / computing)
        yield f"they send once a step: with train.accumulation={enough}, they would wait for a tenth of it"
    else:
        yield (
            f"ZeRO-{plan['deepspeed']} sends in each micro-batch: larger ones (data.pack_length, train.batch_size) "
            "make devices wait less, more accumulation does not"
        )
    if lower := plan["lower_stage"]:
        yield f"{lower['words']} fits, too ({_gib(lower['total'])}), and waits {_seconds(lower['waiting'])} in a step"


def _time(plan: PlanDict) -> Iterator[str]:
    flops, device = plan["flops_per_step"], plan["device"]
    shares = ", ".join(
        f"{name} {percent(flops[key] / flops['total'])}"
        for key, name in (("vision", "vision tower"), ("mlp", "merger"), ("llm", "language model"))
    )
    yield f"{_operations(flops['total'])} in a step: {shares}"
    if plan["flops_per_epoch"] is not None:
        yield f"{_operations(plan['flops_per_epoch'])} in an epoch"
    yield (
        f"assumed: each device reaches {percent(device['mfu'])} (plan.mfu) of {device['tflops']:g} TFLOPS "
        "and does not wait for data"
    )
    parts = [f"a step takes {_seconds(plan['seconds_per_step'])}"]
    parts += [f"an epoch {_seconds(plan['seconds_per_epoch'])}"] if plan["seconds_per_epoch"] is not None else []
    parts += [f"the run {_seconds(plan['seconds'])}"] if plan["seconds"] is not None else []
    yield ", ".join(parts)


def _seconds(seconds: float) -> str:
    if seconds < 0.01:
        return "less than 0.01 s"
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def _operations(flops: float) -> str:
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if flops >= size:
            return f"{flops / size:,.3g} {prefix}FLOP"
    return f"{flops / 1e6:,.3g} MFLOP"


def _verdict(plan: PlanDict) -> Iterator[str]:
    memory = plan["memory"]
    if plan["fits"]:
        yield f"fits on {_devices(plan)}: it takes {_gib(memory['total'])} of each"
        return
    yield f"does not fit on {_devices(plan)}: it takes {_gib(memory['total'])} of each"
    for number, remedy in enumerate(plan["remedies"]):
        yield f"{'it fits' if number == 0 else 'or'} with: {remedy['words']} ({_gib(remedy['total'])})"
    if not plan["remedies"]:
        yield "plan found no change that makes it fit"
