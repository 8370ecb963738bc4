"""Turn the results of the GPU kit into tables in markdown: python scripts/gpu/report.py FOLDER

FOLDER contains the results of scripts/gpu/run.sh. Missing parts are left out. The script needs only Python.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Result = dict[str, Any]

NOTHING = "–"
PARTS = ("tests", "kernels", "packed", "command", "lora", "full", "compile", "trl", "dpo", "zero2")
WAYS = {
    "padded_sdpa": "padded, sdpa",
    "padded_flash": "padded, flash-attn",
    "packed": "ours, packed",
    "trl": "TRL's trainer",
    "ours": "our trainer",
    "apart": "our trainer, nothing shared",
}


def read(folder: Path) -> dict[str, Result]:
    files = {name: folder / f"{name}.json" for name in PARTS}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}


def report(results: dict[str, Result]) -> str:
    blocks = [made_on(results)]
    for name in ("lora", "full", "compile"):
        blocks += steps(results.get(name, {}))
    blocks += profiles(results)
    blocks += kernels(results.get("kernels", {}))
    blocks += packed(results.get("packed", {}))
    blocks += beside(results.get("trl", {}), "steps", "Beside transformers, one step at a time")
    blocks += beside(results.get("trl", {}), "runs", "Beside TRL's SFTTrainer, whole runs from files")
    blocks += beside(results.get("dpo", {}), "runs", "Beside TRL's DPOTrainer, whole runs from files")
    blocks.append(not_measured(results))
    blocks += runs(results)
    blocks += tests(results.get("tests", {}))
    blocks.append(parts(results))
    return "\n\n".join(block for block in blocks if block) + "\n"


def made_on(results: dict[str, Result]) -> str:
    """Return the machine and versions, in one line unless the parts were measured on different machines."""
    lines = dict.fromkeys(_surroundings(result["header"]) for result in results.values())
    return "\n".join(lines)


def _surroundings(header: Result) -> str:
    packages = ", ".join(f"{name} {header[name]}" for name in ("torch", "transformers", "trl") if header[name])
    driver = f", driver {header['driver']}" if header["driver"] else ""
    return f"{header['device']}{driver}, {packages}; commit {header['commit'][:12]}, {header['date'][:10]}"


def steps(result: Result) -> Iterator[str]:
    if not result.get("ways"):
        return
    job, ways = result["job"], result["ways"]
    lengths = job["row_tokens"]
    yield (
        f"### One step of {job['model']}, {job['recipe']}, {job['precision']}, "
        f"rows of {min(lengths):,} to {max(lengths):,} tokens"
    )
    rows = [(name, *_step(row), "" if row.get("right", True) else "WRONG") for name, row in ways.items()]
    yield table(("way", "s a step", "tokens/s", "MFU", "peak GiB", "planned GiB", "planned / peak", ""), rows)
    yield listed(
        f"{name}: {row.get('skipped') or row['failed'].strip().splitlines()[-1]}"
        for name, row in ways.items()
        if {"skipped", "failed"} & row.keys()
    )


def _step(row: Result) -> tuple[str, ...]:
    peak, planned = row.get("peak_gib"), row.get("planned_gib")
    return (
        number(row.get("seconds_per_step"), "{:.3f}"),
        number(row.get("tokens_per_second"), "{:,.0f}"),
        number(row.get("mfu"), "{:.1%}"),
        number(peak, "{:.1f}"),
        number(planned, "{:.1f}"),
        number(planned / peak if planned and peak else None, "{:.2f}"),
    )


def profiles(results: dict[str, Result]) -> Iterator[str]:
    found = {
        f"{part}, {name}": row["profile"]
        for part, result in results.items()
        for name, row in result.get("ways", {}).items()
        if "profile" in row
    }
    if not found:
        return
    kinds = dict.fromkeys(kind for profile in found.values() for kind in profile["kinds"])
    yield "### Where the time goes"
    rows = [(kind, *(number(one["kinds"].get(kind), "{:.1%}") for one in found.values())) for kind in kinds]
    rows.append(("idle, of the whole time", *(number(one["idle"], "{:.1%}") for one in found.values())))
    rows.append(("kernels in a step", *(number(one["kernels_per_step"], "{:,.0f}") for one in found.values())))
    yield table(("kind", *found), rows)
    for name, profile in found.items():
        yield f"What takes longest, {name}:"
        top = [(cell(one["name"]), f"{one['share']:.1%}", f"{one['ms_per_step']:.2f}") for one in profile["top"][:8]]
        yield table(("kernel", "share", "ms in a step"), top)


def kernels(result: Result) -> Iterator[str]:
    if not result.get("cases"):
        return
    yield (
        "### Attention in bf16, forward and backward; errors are relative to float64, "
        f"at most {result['worst_allowed']:g} is right"
    )
    rows = []
    for name, case in result["cases"].items():
        auto, sdpa = case["auto"], case["sdpa"]
        errors = (f"{max(one['errors'].values()):.1e}" for one in (auto, sdpa))
        times = (f"{one['milliseconds']:.2f}" for one in (auto, sdpa))
        ratio = f"{sdpa['milliseconds'] / auto['milliseconds']:.2f}"
        shape = f"{case['heads']} on {case['kv_heads']} of {case['head_size']}"
        rows.append(
            (cell(name), shape, f"{case['tokens']:,}", *errors, *times, ratio, "" if case["right"] else "WRONG")
        )
    heads = ("where", "heads", "tokens", "error", "error, sdpa", "ms", "ms, sdpa", "sdpa / auto", "")
    yield table(heads, rows)


def packed(result: Result) -> Iterator[str]:
    if not result.get("models"):
        return
    yield "### A packed row beside its samples alone, in bf16; relative distances"
    rows = [
        (name, what.replace("_", "-"), f"{row[what]['packed_to_alone']:.1e}", f"{row[what]['bf16_to_float32']:.1e}",
         "" if row[what]["right"] else "WRONG")
        for name, row in result["models"].items()
        for what in ("log_probs", "gradients")
    ]  # fmt: skip
    yield table(("model", "of", "packed to alone", "bf16 to float32", ""), rows)


def beside(result: Result, part: str, title: str) -> Iterator[str]:
    if part not in result:
        return
    job, unit = result["job"], "pairs" if "pairs" in result["job"] else "samples"
    yield f"### {title}: {job['model']}, {job['recipe']}, {job['precision']}, checkpointing {job['checkpointing']}"
    rows = [
        (
            WAYS[name],
            number(row[f"{unit}_per_second"], "{:g}"),
            number(row["tokens_per_second"], "{:,.0f}"),
            number(row["mfu"], "{:.1%}"),
            number(row["peak_memory_gib"], "{:.1f}"),
            number(row["padding"], "{:.0%}"),
            number(row["ours_is_times"], "{:.2f}"),
        )
        for name, row in result[part].items()
    ]
    yield table(("way", f"{unit}/s", "tokens/s", "MFU", "peak GiB", "padding", "ours is times as fast"), rows)


def not_measured(results: dict[str, Result]) -> str:
    found = {
        (part, name): why for part in ("trl", "dpo") for name, why in results.get(part, {}).get("skipped", {}).items()
    }
    return listed(f"{part}, {WAYS[name]}: not measured, {why}" for (part, name), why in found.items())


def runs(results: dict[str, Result]) -> Iterator[str]:
    rows = []
    for name in ("command", "zero2"):
        result = results.get(name, {})
        if not result.get("steps"):
            continue
        first, last = result["steps"][0], result["steps"][-1]
        matches = [row.get("eval_exact_match") for row in result["evaluations"]]
        score = " to ".join(number(match, "{:.1%}") for match in (matches[:1] + matches[-1:])) or NOTHING
        losses = f"{first['loss']:.3f} to {last['loss']:.3f}"
        pace = number(last["tokens_per_second"], "{:,.0f}")
        rows.append(
            (cell(" ".join(result["words"])), last["step"], losses, score, pace, number(last.get("mfu"), "{:.1%}"))
        )
    if rows:
        yield "### The command on the embedded model and data"
        yield table(("qwenvl-train", "steps", "loss", "held-out exact match", "tokens/s", "MFU"), rows)


def tests(result: Result) -> Iterator[str]:
    if "passed" not in result:
        return
    yield "### Tests that need a GPU"
    yield f"{result['passed']} passed, {result['failed']} failed, {result['skipped']} skipped."
    yield listed(result["failures"])


def parts(results: dict[str, Result]) -> str:
    rows = [
        (name, "done" if result["header"]["exit"] == 0 else f"exit code {result['header']['exit']}",
         f"{result['header']['seconds']:.0f}")
        for name, result in results.items()
    ]  # fmt: skip
    return "### How the parts ended\n\n" + table(("part", "", "s"), rows)


def table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(word) for word in line) + " |" for line in lines)


def listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def number(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    results = read(parser.parse_args().folder)
    if not results:
        raise SystemExit("There is no result of the kit in this folder.")
    print(report(results), end="")


if __name__ == "__main__":
    main()
