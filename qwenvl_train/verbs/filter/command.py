"""The verb filter. It judges the rows of data.train by rules, and writes those that are kept."""

import shutil
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import qwenvl_train
from qwenvl_train.config.compose import Composed
from qwenvl_train.curation.rules.table import used
from qwenvl_train.data.forked import forked_map
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.bar import counting
from qwenvl_train.reporting.folder import write_json_atomic
from qwenvl_train.reporting.stdout import print_json
from qwenvl_train.reporting.wording import duration, many
from qwenvl_train.verbs.filter.figures import Figures, figures_of
from qwenvl_train.verbs.filter.folder import SUMMARY, FilterFolder
from qwenvl_train.verbs.filter.judged import JudgedRow, judge_row, table_of
from qwenvl_train.verbs.filter.outcome import Outcome, outcome_of, rules_in
from qwenvl_train.verbs.filter.page import PAGE, write_page
from qwenvl_train.verbs.filter.settings import PACKAGES, FilterConfig, FilterSection
from qwenvl_train.verbs.filter.shown import shown_rows
from qwenvl_train.verbs.filter.text import print_figures
from qwenvl_train.verbs.filter.writing import write_entries, write_rows, write_verdicts

_CHUNK = 2048
"""Number of rows that a process judges at a time."""


def run(composed: Composed[FilterConfig]) -> None:
    config = composed.config
    samples = Samples(config.data.train, "data.train", config.data.allow_remote, config.cache_folder)
    folder = FilterFolder(Path(config.filter.to).expanduser().absolute())
    shows_text = config.output == "text"
    folder.open(_settings(config.filter, samples))
    if shows_text:
        print("\n".join(samples.describe()), flush=True)
    if (stored := folder.summary()) is None:
        _refuse_full_disk(samples, folder.path)
        chunks = [range(start, min(start + _CHUNK, len(samples))) for start in range(0, len(samples), _CHUNK)]
        judged = _judge(samples, folder, config, chunks)
        if shows_text:
            print(judged, flush=True)
        outcome = outcome_of(folder, config.filter)
        figures = _write(samples, outcome, folder, config, chunks)
    else:
        figures = Figures.of(stored)
    if shows_text:
        print_figures(figures, folder)
    else:
        print_json({"folder": str(folder.path), **figures.as_dict()})
    if not figures.kept:
        raise UserError(_nothing_left(figures, folder))


def _judge(samples: Samples, folder: FilterFolder, config: FilterConfig, chunks: list[range]) -> str:
    """Judge the rows that are not judged yet. Return how fast that was, in words."""
    section = config.filter
    missing = [rows for rows in chunks if not folder.has_part(rows.start, len(rows))]
    killed = (
        "A worker that judges rows was killed, usually because memory ran out; lower data.workers. The same command "
        "goes on where it was."
    )

    def judged(rows: range) -> list[JudgedRow]:
        return [judge_row(samples, row, section) for row in rows]

    start, done = monotonic(), 0
    with counting("judging rows", sum(map(len, missing))) as progress:
        found = forked_map(judged, missing, _processes(config, missing), killed)
        for rows, judgements in zip(missing, found, strict=True):
            compared = section.duplicates.use != "off"
            folder.save_part(rows.start, table_of(judgements, rules_in(section), compared))
            done += len(rows)
            progress(done)
    return _in_words(done, len(samples), monotonic() - start)


def _in_words(judged: int, rows: int, seconds: float) -> str:
    if not judged:
        return f"all {many(rows, 'row')} are judged from before"
    before = f"; {many(rows - judged, 'further row')} from before" if rows > judged else ""
    return f"{many(judged, 'row')} judged in {duration(seconds)}, {judged / max(seconds, 1e-9):,.3g} a second{before}"


def _processes(config: FilterConfig, chunks: list[range]) -> int:
    return min(config.data.workers, len(chunks))


def _write(
    samples: Samples, outcome: Outcome, folder: FilterFolder, config: FilterConfig, chunks: list[range]
) -> Figures:
    """Write all results. The summary is written last, and says that the filter is finished."""
    with counting("writing rows", len(samples)) as progress:
        for done in write_rows(samples, outcome, folder, chunks, _processes(config, chunks)):
            progress(done)
    write_verdicts(samples, outcome, folder)
    write_entries(samples, outcome, folder)
    figures = figures_of(samples, outcome, folder)
    write_page(figures, shown_rows(samples, outcome, folder, config.filter.examples), folder)
    write_json_atomic(folder.path / SUMMARY, figures.as_dict())
    folder.remove_parts()
    return figures


def _settings(section: FilterSection, samples: Samples) -> dict[str, Any]:
    """Return everything that the results follow from, as plain data."""
    sections = {rule.name: settings.model_dump(mode="json") for rule, settings in used(section)}
    if section.duplicates.use != "off":
        sections["duplicates"] = section.duplicates.model_dump(mode="json")
    packages = {package: version(package) for package in PACKAGES.values()}
    code = {"qwenvl-train": qwenvl_train.__version__, **packages}
    return {"data": samples.fingerprint(), "packages": code, **sections}


def _refuse_full_disk(samples: Samples, folder: Path) -> None:
    """Raise UserError if the disk has no room for a copy of the rows. Media are not copied."""
    needed = 2 * sum(file.stat().st_size for file in map(Path, samples.names()) if file.is_file())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"filter.to={folder}: the disk has {free / 2**30:.1f} GiB free, and the rows need up to "
            f"{needed / 2**30:.1f} GiB; free some space, or name a folder on another disk."
        )


def _nothing_left(figures: Figures, folder: FilterFolder) -> str:
    most = max((rule for rule in figures.rules if rule.drops), key=lambda rule: rule.falls)
    return (
        f"filter: no row is kept; {most.falls:,} of {figures.rows:,} fall to {most.name}. Raise its limits, or set "
        f"filter.{most.name}.use=mark; {folder.path / PAGE} shows the rows."
    )
