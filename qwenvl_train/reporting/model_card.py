"""The README.md of a checkpoint: its base model, what was trained on which data, and with which versions. It holds only
facts of the run."""

from collections.abc import Iterable

import yaml

from qwenvl_train.reporting.reporter import Row, RunInfo
from qwenvl_train.reporting.wording import count, figure, label, percent


def model_card(info: RunInfo, step: int, versions: Row, evaluation: Row | None) -> str:
    """Return the text of the card. `evaluation` has the metrics at the checkpoint's own step, if there are any."""
    config, origin = info.config, info.lineage
    base = origin.get("merged_model") or origin.get("base_model") or config["model"]["path"]
    adapters = any(row["mode"] == "lora" for row in info.components)
    method = {"sft": "supervised fine-tuning", "dpo": "DPO"}[config["method"]]
    facts = {
        "base_model": str(base),
        "library_name": "peft" if adapters else "transformers",
        "tags": [config["method"]],
    }
    revision = f" (revision {config['model']['revision']})" if config["model"]["revision"] else ""
    sections = [
        f"# {info.name}, step {step:,}",
        f"{'Adapters and trained components' if adapters else 'All weights'} after {step:,} of {info.total_steps:,} "
        f"steps of {method} of {base}{revision}.",
        *_started_from(origin),
        "## Trained components",
        _table(("component", "mode", "parameters", "trained", "share", "learning rate"), map(_cells, info.components)),
        "## Data",
        _list(source["path"] for source in config["data"]["train"]),
        *_held_out(config, evaluation),
        "## Versions",
        _list(f"{name} {version}" for name, version in versions.items() if version),
    ]
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---\n\n" + "\n\n".join(sections) + "\n"


def _started_from(lineage: Row) -> Iterable[str]:
    if "adapter" in lineage:
        yield f"The run started from the LoRA adapter {lineage['path']}, which was {lineage['adapter']}."


def _cells(row: Row) -> tuple[str, ...]:
    share = percent(row["trained"] / row["parameters"] if row["parameters"] else 0.0)
    rate = "" if row["lr"] is None else figure("lr", row["lr"])
    return row["component"], row["mode"], count(row["parameters"]), count(row["trained"]), share, rate


def _held_out(config: Row, evaluation: Row | None) -> Iterable[str]:
    if not evaluation:
        return
    yield "## Held-out score at this step"
    held_out = config["data"]["eval"]
    yield f"- {held_out} of the data" if isinstance(held_out, str) else _list(source["path"] for source in held_out)
    figures = {key: value for key, value in evaluation.items() if not isinstance(value, dict)}
    shown = [key for key in figures if key not in ("eval_samples", "eval_seconds")]
    yield _table(("metric", "value"), ((label(key), figure(key, figures[key])) for key in shown))


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
