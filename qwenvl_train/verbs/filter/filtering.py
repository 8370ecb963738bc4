"""Carries out a filter: judges all rows, decides which are kept, and writes the results."""

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import qwenvl_train
from qwenvl_train.curation.rules.table import used
from qwenvl_train.data.forked import forked_map
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.bar import counting
from qwenvl_train.reporting.folder import write_json_atomic
from qwenvl_train.reporting.wording import duration, many
from qwenvl_train.verbs.filter.figures import Figures, figures_of
from qwenvl_train.verbs.filter.folder import SUMMARY, FilterFolder
from qwenvl_train.verbs.filter.judged import JudgedRow, judge_row, table_of
from qwenvl_train.verbs.filter.outcome import Outcome, outcome_of, rules_in
from qwenvl_train.verbs.filter.page import write_page
from qwenvl_train.verbs.filter.settings import PACKAGES, FilterConfig
from qwenvl_train.verbs.filter.shown import shown_rows
from qwenvl_train.verbs.filter.writing import write_entries, write_rows, write_verdicts

_CHUNK = 2048
"""Number of rows that a process judges at a time."""
_KILLED = (
    "A worker that {does} rows was killed, usually because memory ran out; lower data.workers. The same command goes "
    "on where it was."
)


class Filtering:
    def __init__(self, config: FilterConfig, tell: Callable[[str], None]):
        """`tell` takes lines about the progress."""
        self._config, self._section, self._tell = config, config.filter, tell
        self._samples = Samples(config.data.train, "data.train", config.data.allow_remote, config.cache_folder)
        self.folder = FilterFolder(Path(config.filter.to).expanduser().absolute())
        rows = len(self._samples)
        self._chunks = [range(start, min(start + _CHUNK, rows)) for start in range(0, rows, _CHUNK)]

    def figures(self) -> Figures:
        """Return the figures of the filter, which is carried out unless it is finished."""
        self.folder.open(self._settings())
        for line in self._samples.describe():
            self._tell(line)
        if (stored := self.folder.summary()) is not None:
            return Figures.of(stored)
        self._refuse_full_disk()
        self._judge()
        return self._write(outcome_of(self.folder, self._section))

    def _settings(self) -> dict[str, Any]:
        """Return everything that the results follow from, as plain data."""
        sections = {rule.name: settings.model_dump(mode="json") for rule, settings in used(self._section)}
        if self._section.duplicates.use != "off":
            sections["duplicates"] = self._section.duplicates.model_dump(mode="json")
        packages = {package: version(package) for package in PACKAGES.values()}
        code = {"qwenvl-train": qwenvl_train.__version__, **packages}
        return {"data": self._samples.fingerprint(), "packages": code, **sections}

    def _judge(self) -> None:
        """Judge the rows that are not judged yet, each by itself."""
        samples, section = self._samples, self._section
        missing = [rows for rows in self._chunks if not self.folder.has_part(rows.start, len(rows))]

        def judged(rows: range) -> list[JudgedRow]:
            return [judge_row(samples, row, section) for row in rows]

        start, done = monotonic(), 0
        with counting("judging rows", sum(map(len, missing))) as progress:
            found = forked_map(judged, missing, self._processes(missing), _KILLED.format(does="judges"))
            for rows, judgements in zip(missing, found, strict=True):
                table = table_of(judgements, rules_in(section), compared=section.duplicates.use != "off")
                self.folder.save_part(rows.start, table)
                done += len(rows)
                progress(done)
        self._tell(_in_words(done, len(samples), monotonic() - start))

    def _processes(self, chunks: list[range]) -> int:
        return min(self._config.data.workers, len(chunks))

    def _write(self, outcome: Outcome) -> Figures:
        """Write all results. The summary is written last, and says that the filter is finished."""
        samples, folder = self._samples, self.folder
        killed = _KILLED.format(does="writes")
        with counting("writing rows", len(samples)) as progress:
            for done in write_rows(samples, outcome, folder, self._chunks, self._processes(self._chunks), killed):
                progress(done)
        write_verdicts(samples, outcome, folder)
        write_entries(samples, outcome, folder)
        figures = figures_of(samples, outcome, folder)
        write_page(figures, shown_rows(samples, outcome, folder, self._section.examples), folder)
        write_json_atomic(folder.path / SUMMARY, figures.as_dict())
        folder.remove_parts()
        return figures

    def _refuse_full_disk(self) -> None:
        """Raise UserError if the disk has no room for a copy of the rows. Media are not copied."""
        needed = 2 * sum(file.stat().st_size for file in map(Path, self._samples.names()) if file.is_file())
        free = shutil.disk_usage(self.folder.path).free
        if needed > free:
            raise UserError(
                f"filter.to={self.folder.path}: the disk has {free / 2**30:.1f} GiB free, and the rows need up to "
                f"{needed / 2**30:.1f} GiB; free some space, or name a folder on another disk."
            )


def _in_words(judged: int, rows: int, seconds: float) -> str:
    if not judged:
        return f"all {many(rows, 'row')} are judged from before"
    before = f"; {many(rows - judged, 'further row')} from before" if rows > judged else ""
    return f"{many(judged, 'row')} judged in {duration(seconds)}, {judged / max(seconds, 1e-9):,.3g} a second{before}"
