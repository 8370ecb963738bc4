"""Exports a model: finds it, writes it to a folder, compares it with the run, and renames the folder."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from qwenvl_train.errors import UserError, message_of
from qwenvl_train.files import publish_folder
from qwenvl_train.model.adapter_files import size_of_lora
from qwenvl_train.model.load import DTYPES
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.published import size_in
from qwenvl_train.reporting.wording import many
from qwenvl_train.training.disk_space import free_bytes, gib, size_of
from qwenvl_train.verbs.export.card import limits_of, own_limits, write_cards
from qwenvl_train.verbs.export.serving import name_of, python_lines, serve_line
from qwenvl_train.verbs.export.settings import ExportConfig
from qwenvl_train.verbs.export.source import Source, find_source
from qwenvl_train.verbs.export.thinking import asked_in
from qwenvl_train.verbs.export.verifying import Mismatch, Verified, verify
from qwenvl_train.verbs.export.writing import parts_of, write

_SMALL_FILES = 50 * 2**20
"""About how many bytes the tokenizer and the other files of a published model take."""


@dataclass(frozen=True)
class Exported:
    lines: list[str]
    """What was written, and how to load it."""
    checkpoint: Path
    dtype: str
    size: int
    """Bytes of all files."""
    compared: str | None
    """How it was compared with the run, or None if it was not."""


def export(config: ExportConfig, staging: Path, final: Path) -> Exported:
    """Write the export to `staging`, compare it with the run, and rename it to `final`."""
    source = find_source(config)
    family = load_family(source.config.model)
    _refuse_full_disk(source, final)
    parts = write(source, staging, final)
    verified = None
    if config.export.verify:
        print("comparing it with the run …", flush=True)
        try:
            verified = verify(source, parts, family)
        except Mismatch as error:
            raise UserError(
                f"The export is not the model of the run, and {final} was not written: {message_of(error)}."
            ) from error
    placed = parts_of(source, final.absolute())
    name = name_of(source, final)
    limits = limits_of(source, parts.processor)
    thinking = asked_in(source, family)
    size_limits = own_limits(source, limits) if placed.model is None else None
    serve = serve_line(source, placed, name, size_limits, thinking.options)
    python = "\n".join(python_lines(source, placed))
    compared = in_words(verified) if verified else None
    loading = [("transformers", "python", python), ("vLLM", "sh", serve)]
    write_cards(source, parts, name, limits, thinking.lines, loading, compared)
    for folder in parts.all:
        for file in folder.glob("*.safetensors"):  # which safetensors lets only their owner read
            shutil.copymode(folder / "README.md", file)
    size = size_of(staging)
    publish_folder(staging, final)
    what = "one model" if placed.adapter is None else "LoRA weights" + (" and their base model" if placed.model else "")
    lines = [
        f"written     {final}: {what}, {source.dtype}, {_size(size)}",
        f"verified    {compared or 'no (export.verify=false)'}",
        *([f"thinking    {thinking.told}"] if thinking.told else []),
        "",
        python,
        "",
        serve,
    ]
    return Exported(lines, Path(source.config.model.path), source.dtype, size, compared)


def in_words(verified: Verified) -> str:
    exact = (
        "all equal to the run's" if not verified.weights else f"{many(verified.weights, 'weight')} rounded otherwise"
    )
    answers = f"{verified.same} of {many(verified.answers, 'greedy answer')} the same"
    if verified.same < verified.answers:
        answers += ", the others part at a tie"
    return (
        f"{many(verified.tensors, 'tensor')}, {exact}; on {verified.rows} in plain transformers, logits differ by at "
        f"most {verified.logit:.1e} of the largest ({verified.allowed:g} allowed), {answers}"
    )


def _refuse_full_disk(source: Source, final: Path) -> None:
    needed = _SMALL_FILES
    if source.config.export.form == "merged" or source.has_own_base:
        needed += size_in(source.tensors, DTYPES[source.dtype].itemsize)
    if source.adapter and source.config.export.form == "adapter":
        needed += size_of_lora(source.adapter)
    free = free_bytes(final)
    if needed > free:
        raise UserError(
            f"export.to: the export needs about {gib(needed)} in {final}, and {gib(free)} are free; free some space, "
            "or name a folder on another disk."
        )


def _size(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
