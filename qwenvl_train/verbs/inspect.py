"""Shows what the model will be trained on, before it is: no weights are read, no run folder is made."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from transformers import AutoConfig

from qwenvl_train.config.compose import Composed
from qwenvl_train.config.schema import ModelConfig, RunConfig, SourceConfig
from qwenvl_train.data.render import Rendered, Renderer
from qwenvl_train.data.samples import Samples
from qwenvl_train.data.streaming.head import Head, read_head
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family
from qwenvl_train.model.load import load_family, load_processor
from qwenvl_train.reporting.bar import counted
from qwenvl_train.reporting.inspection import Broken, Inspected
from qwenvl_train.reporting.inspection_json import as_json
from qwenvl_train.reporting.inspection_media import Windows
from qwenvl_train.reporting.inspection_page import Drawn, Heading, write_page
from qwenvl_train.reporting.inspection_text import InspectionText
from qwenvl_train.reporting.progress import console_on
from qwenvl_train.verbs.choosing import choose
from qwenvl_train.verbs.inspected import Inspector
from qwenvl_train.verbs.overview import EVERY_KIND, overview_of
from qwenvl_train.verbs.rows import cache_folder, make_renderer

Looked = Iterator[tuple[Inspected, Rendered] | Broken]


def run(composed: Composed) -> None:
    config = composed.config
    family = load_family(config.model)
    processor = load_processor(config.model)
    renderer = make_renderer(config, processor, family)
    sources = config.data.train if config.inspect.source == "train" else config.data.eval
    assert sources is not None
    rows = _open(config, sources, renderer)
    chosen = choose(rows, config.inspect, config.seed)
    inspector = Inspector(rows, renderer, processor.tokenizer)
    looked = (inspector.look(index) for index in chosen)
    try:
        match config.output:
            case "text":
                _print_text(config, rows, renderer, looked, len(chosen))
            case "html":
                heading = Heading(
                    model=f"{family.name} ({config.model.path})",
                    data=", ".join(source.path for source in sources),
                    files=rows.describe(),
                    windows=_windows(config.model, family, renderer),
                )
                items = counted(_drawn(inspector, looked), "drawing samples", len(chosen))
                _write_page(config, heading, items, rows, renderer)
            case "json":
                _print_json(rows, looked, len(chosen))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough, as `| head` does; at its end Python would flush, and complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open(config: RunConfig, sources: tuple[SourceConfig, ...], renderer: Renderer) -> Samples | Head:
    """All rows, by index; or those that a streamed run reads first."""
    if not config.data.streaming or config.inspect.source == "eval":
        return Samples(sources, f"data.{config.inspect.source}", config.data.allow_remote, cache_folder(config))
    with console_on(sys.stderr).status("reading the first rows"):
        return read_head(config, renderer, cache_folder(config), EVERY_KIND)


def _print_text(config: RunConfig, rows: Samples | Head, renderer: Renderer, looked: Looked, total: int) -> None:
    text = InspectionText(_Printer(highlight=False))
    text.files(rows.describe())
    unusable = 0
    for number, found in enumerate(looked, start=1):
        item = _facts(found)
        unusable += item.problem is not None
        text.sample(number, total, item)
    if unusable:
        text.unusable(unusable, total)
    if config.inspect.summary:
        text.overview(overview_of(config, rows, renderer))


class _Printer(Console):
    def on_broken_pipe(self) -> None:
        """Rich's own would exit with 1, which stands for a fault of ours."""
        raise BrokenPipeError


def _print_json(rows: Samples | Head, looked: Looked, total: int) -> None:
    if isinstance(rows, Head) and not rows.whole:
        print(rows.extent, file=sys.stderr)
    unusable = 0
    for found in looked:
        item = _facts(found)
        unusable += item.problem is not None
        print(json.dumps(as_json(item)))
    if unusable:
        print(f"{unusable} of these {total} rows cannot be trained on", file=sys.stderr)


def _write_page(
    config: RunConfig,
    heading: Heading,
    items: Iterator[tuple[Inspected, Drawn] | Broken],
    rows: Samples | Head,
    renderer: Renderer,
) -> None:
    overview = overview_of(config, rows, renderer) if config.inspect.summary else None
    path = Path(config.inspect.file)
    try:
        write_page(path, heading, items, overview)
    except OSError as error:
        raise UserError(f"inspect.file={path} cannot be written: {error.strerror}.") from None
    print(f"written to {path.absolute()}")


def _facts(found: tuple[Inspected, Rendered] | Broken) -> Inspected | Broken:
    return found if isinstance(found, Broken) else found[0]


def _drawn(inspector: Inspector, looked: Looked) -> Iterator[tuple[Inspected, Drawn] | Broken]:
    for found in looked:
        yield found if isinstance(found, Broken) else (found[0], inspector.draw(*found))


def _windows(model: ModelConfig, family: Family, renderer: Renderer) -> Windows | None:
    """Only this generation has them."""
    if family.model_type != "qwen2_5_vl":
        return None
    local = Path(model.path).expanduser()
    where = local if local.exists() else model.path
    vision = AutoConfig.from_pretrained(where, revision=model.revision or "main").vision_config
    side = vision.window_size // renderer.pixels.merge // renderer.pixels.patch
    return Windows(side, list(vision.fullatt_block_indexes))
