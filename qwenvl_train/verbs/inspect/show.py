"""The work of the verb inspect. It shows what the model will be trained on, without reading weights or making a run
folder."""

import sys
from collections.abc import Iterator
from pathlib import Path

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.data.samples import Samples
from qwenvl_train.data.streaming.head import Head, read_head
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family
from qwenvl_train.model.pretrained import load_config
from qwenvl_train.model.processor import load_processor
from qwenvl_train.reporting.bar import counted
from qwenvl_train.reporting.console import console_on
from qwenvl_train.reporting.stdout import print_json
from qwenvl_train.reporting.wording import count, many
from qwenvl_train.run.held_out import split_alone
from qwenvl_train.run.rows import make_renderer, tolerated_problems
from qwenvl_train.verbs.inspect.choosing import choose
from qwenvl_train.verbs.inspect.facts import Broken, Inspected, Overview
from qwenvl_train.verbs.inspect.inspector import Inspector
from qwenvl_train.verbs.inspect.json_rows import as_json
from qwenvl_train.verbs.inspect.media import Windows
from qwenvl_train.verbs.inspect.overview import EVERY_KIND, measured, overview_of
from qwenvl_train.verbs.inspect.page import DrawnSample, Heading, write_page
from qwenvl_train.verbs.inspect.settings import InspectConfig
from qwenvl_train.verbs.inspect.text import InspectionText

Results = Iterator[tuple[Inspected, Rendered] | Broken]


def show(config: InspectConfig, family: Family) -> None:
    processor = load_processor(config.model, family)
    renderer = make_renderer(config, processor, family)
    sources = config.data.train if config.inspect.source == "train" else config.data.eval_entries or config.data.train
    rows = _open(config, sources, renderer)
    chosen = choose(rows, config.inspect, config.seed)
    inspector = Inspector(rows, renderer, processor.tokenizer)
    unusable = _UnusableRows(config)
    results = unusable.counting(inspector.inspect(index) for index in chosen)
    match config.output:
        case "text":
            _print_text(config, rows, renderer, results, len(chosen), unusable)
        case "html":
            heading = Heading(
                model=f"{family.name} ({config.model.path})",
                data=", ".join(source.path for source in sources),
                files=rows.describe(),
                windows=_windows(config.model, family, renderer),
            )
            items = counted(_drawn(inspector, results), "drawing samples", len(chosen))
            _write_page(config, heading, items, rows, renderer, unusable)
        case "json":
            _print_json(rows, results)
    sys.stdout.flush()
    unusable.report()


class _UnusableRows:
    """A count of the rows that cannot be trained on, among the rows shown and in the whole source."""

    def __init__(self, config: InspectConfig) -> None:
        self._tolerated = tolerated_problems(config)
        self._shown = self._unusable = self._fatal = 0
        self._overview: Overview | None = None

    def counting(self, results: Results) -> Results:
        for found in results:
            item = _facts(found)
            kind = "broken" if isinstance(item, Broken) else "too long"
            self._shown += 1
            if item.problem is not None:
                self._unusable += 1
                self._fatal += kind not in self._tolerated
            yield found

    def take_overview(self, overview: Overview) -> Overview:
        self._overview = overview
        return overview

    def report(self) -> None:
        """Raise UserError if a run would end at these rows, so that scripts see it in the exit code."""
        if self._overview is not None and self._overview.ends_run:
            rows = many(len(self._overview.problems), "row")
            raise UserError(f"{rows} cannot be trained on; {self._overview.consequence}.")
        if self._unusable:
            rows = f"{count(self._unusable)} of these {many(self._shown, 'row')} cannot be trained on"
            if self._fatal:
                raise UserError(f"{rows}; a run ends at the first of them (data.on_error=skip leaves them out).")
            print(rows, file=sys.stderr)


def _open(config: InspectConfig, sources: tuple[SourceConfig, ...], renderer: Renderer) -> Samples | Head:
    """Return all rows, or, for a stream, the rows that a run reads first."""
    if config.data.eval_share is not None:
        whole = Samples(sources, "data.train", config.data.allow_remote, config.cache_folder)
        trained, evaluated = split_alone(config, measured(config, whole, renderer))
        return (trained if config.inspect.source == "train" else evaluated).samples
    if not config.data.streaming or config.inspect.source == "eval":
        return Samples(sources, f"data.{config.inspect.source}", config.data.allow_remote, config.cache_folder)
    with console_on(sys.stderr).status("reading the first rows"):
        return read_head(config, renderer, config.cache_folder, EVERY_KIND)


def _print_text(
    config: InspectConfig,
    rows: Samples | Head,
    renderer: Renderer,
    results: Results,
    total: int,
    unusable: _UnusableRows,
) -> None:
    text = InspectionText(console_on())
    text.files(rows.describe())
    for number, one in enumerate(results, start=1):
        text.sample(number, total, _facts(one))
    if config.inspect.summary:
        text.overview(unusable.take_overview(overview_of(config, rows, renderer)))


def _print_json(rows: Samples | Head, results: Results) -> None:
    if isinstance(rows, Head) and not rows.whole:
        print(rows.extent, file=sys.stderr)
    for one in results:
        print_json(as_json(_facts(one)))


def _write_page(
    config: InspectConfig,
    heading: Heading,
    items: Iterator[tuple[Inspected, DrawnSample] | Broken],
    rows: Samples | Head,
    renderer: Renderer,
    unusable: _UnusableRows,
) -> None:
    overview = unusable.take_overview(overview_of(config, rows, renderer)) if config.inspect.summary else None
    path = Path(config.inspect.file)
    try:
        write_page(path, heading, items, overview)
    except OSError as error:
        raise UserError(f"inspect.file={path} cannot be written: {error.strerror}.") from None
    print(f"written to {path.absolute()}")


def _facts(found: tuple[Inspected, Rendered] | Broken) -> Inspected | Broken:
    return found if isinstance(found, Broken) else found[0]


def _drawn(inspector: Inspector, results: Results) -> Iterator[tuple[Inspected, DrawnSample] | Broken]:
    for found in results:
        yield found if isinstance(found, Broken) else (found[0], inspector.draw(*found))


def _windows(model: ModelConfig, family: Family, renderer: Renderer) -> Windows | None:
    """Return the windows of the vision tower. Return None unless the model is of type qwen2_5_vl, since only this
    generation has windows."""
    if family.model_type != "qwen2_5_vl":
        return None
    vision = load_config(model).vision_config
    side = vision.window_size // renderer.pixels.merge // renderer.pixels.patch
    return Windows(side, list(vision.fullatt_block_indexes))
