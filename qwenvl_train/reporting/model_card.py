"""The README.md of a checkpoint or an export: its base model, what was trained on which data, and with which versions.
It holds only facts of the run."""

from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from qwenvl_train.reporting.reporter import Row, RunInfo
from qwenvl_train.reporting.wording import count, figure, label, percent

_METHODS = {"sft": "supervised fine-tuning", "dpo": "DPO"}


@dataclass(frozen=True)
class ExportedModel:
    """The facts that the card of an export states."""

    name: str
    what: str
    """What the folder holds, such as: LoRA weights"""
    is_adapter: bool
    base: str
    revision: str | None
    licence: Row
    """The entries about the licence in the card of the base model."""
    pixels: list[str]
    """The limits of images and videos."""
    thinking: list[str]
    """How the model was asked to think. Empty if there is nothing to tell."""
    loading: list[tuple[str, str, str]]
    """Ways to load it: a heading, the language, and the lines."""
    compared: str | None
    """What the export was compared with, or None if it was not verified."""
    config: Row
    """The settings of the run. Empty if the model has no run, as are the next three."""
    environment: Row
    components: list[Row]
    evaluation: Row
    data: list[str]
    """A line for each entry of data.train, with its digest."""
    step: int | None


def export_card(model: ExportedModel) -> str:
    """Return the text of the card of an export."""
    library = "peft" if model.is_adapter else "transformers"
    facts = {"base_model": model.base, "library_name": library, "pipeline_tag": "image-text-to-text", **model.licence}
    if model.config:
        facts["tags"] = [model.config["method"]]
    revision = f" (revision {model.revision})" if model.revision else ""
    sections = [f"# {model.name}", f"{model.what} Fine-tuned from {model.base}{revision}."]
    for heading, language, lines in model.loading:
        sections += [f"## {heading}", f"```{language}\n{lines}\n```"]
    if model.thinking:
        sections += ["## Thoughts", *model.thinking]
    sections += ["## Images and videos", _list(model.pixels)]
    if model.config:
        sections += _of_run(model)
    if model.compared:
        sections += ["## Comparison with the trained model", model.compared]
    return _card(facts, sections)


def _of_run(model: ExportedModel) -> Iterable[str]:
    config, environment = model.config, model.environment
    recipe = environment.get("recipe")
    after = "" if model.step is None else f", {count(model.step)} steps"
    yield "## Training"
    method = _METHODS[config["method"]]
    yield f"{method[0].upper()}{method[1:]}{f', recipe {recipe}' if recipe else ''}{after}, seed {config['seed']}."
    yield _components(model.components)
    yield "## Data"
    yield _list(model.data)
    if samples := environment.get("run", {}).get("samples"):
        tokens = environment["run"]["tokens"]
        yield f"{count(samples)} samples, {count(tokens)} tokens."
    yield from _held_out(config, model.evaluation)
    yield "## Versions"
    yield _versions(environment.get("packages", {}))


def model_card(info: RunInfo, step: int, versions: Row, evaluation: Row | None) -> str:
    """Return the text of the card. `evaluation` has the metrics at the checkpoint's own step, if there are any."""
    config, origin = info.config, info.lineage
    base = origin.get("merged_model") or origin.get("base_model") or config["model"]["path"]
    adapters = any(row["mode"] == "lora" for row in info.components)
    method = _METHODS[config["method"]]
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
        _components(info.components),
        "## Data",
        _list(source["path"] for source in config["data"]["train"]),
        *_held_out(config, evaluation),
        "## Versions",
        _versions(versions),
    ]
    return _card(facts, sections)


def _card(facts: Row, sections: list[str]) -> str:
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---\n\n" + "\n\n".join(sections) + "\n"


def _components(rows: list[Row]) -> str:
    return _table(("component", "mode", "parameters", "trained", "share", "learning rate"), map(_cells, rows))


def _versions(versions: Row) -> str:
    return _list(f"{name} {version}" for name, version in versions.items() if version)


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
    held_out = config["data"]["eval"] or []
    yield f"- {held_out} of the data" if isinstance(held_out, str) else _list(source["path"] for source in held_out)
    figures = {key: value for key, value in evaluation.items() if not isinstance(value, dict)}
    shown = [key for key in figures if key not in ("eval_answers", "eval_samples", "eval_seconds")]
    yield _table(("metric", "value"), ((label(key), figure(key, figures[key])) for key in shown))


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
