"""Carries out a filter: judges all rows, decides which are kept, and writes the results."""

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from qwenvl_train.curation.judging.classes import Tree, read_tree
from qwenvl_train.curation.judging.described import CLASSES
from qwenvl_train.curation.rules.unwanted import patterns_in
from qwenvl_train.data.forked import forked_map
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.bar import counting
from qwenvl_train.reporting.folder import plain, write_json_atomic
from qwenvl_train.reporting.wording import count, duration, many
from qwenvl_train.verbs.filter.by_model import digest, model_rules, open_model_judge
from qwenvl_train.verbs.filter.figures import FilterFigures, figures_of
from qwenvl_train.verbs.filter.folder import SUMMARY, FilterFolder
from qwenvl_train.verbs.filter.judged import judge_row, table_of
from qwenvl_train.verbs.filter.kept_files import KeptFiles, refuse_repeats
from qwenvl_train.verbs.filter.kinds import described_rules
from qwenvl_train.verbs.filter.outcome import Outcome, outcome_of_rules, rules_in, with_judgements
from qwenvl_train.verbs.filter.page import write_page
from qwenvl_train.verbs.filter.settings import PACKAGES, FilterConfig
from qwenvl_train.verbs.filter.shown import shown_rows
from qwenvl_train.verbs.filter.writing import write_entries, write_rows, write_verdicts

if TYPE_CHECKING:
    from accelerate import PartialState

Made = TypeVar("Made")

_CHUNK = 256
"""Number of rows that are judged at a time, and whose judgements are a file."""
_KILLED = (
    "A worker that judges rows was killed, usually because memory ran out; lower data.workers. The same command goes "
    "on where it was."
)


class Filtering:
    def __init__(self, config: FilterConfig, tell: Callable[[str], None]):
        """`tell` takes lines about the progress."""
        self._config, self._section, self._tell = config, config.filter, tell
        self._state = _joined(config) if self._section.judged else None
        """The processes, if several may share the work of a model."""
        self._samples = self._opened()
        assert config.filter.to is not None
        self.folder = FilterFolder(Path(config.filter.to).expanduser())
        rows = len(self._samples)
        self._chunks = [range(start, min(start + _CHUNK, rows)) for start in range(0, rows, _CHUNK)]
        classified = self._section.classes.use != "off"
        self._tree: Tree = read_tree(self._section.classes.tree, "filter.classes.tree") if classified else {}
        refuse_repeats(config.data.train, self._tree)
        self._judge_model = None if self._state is None else open_model_judge(config, self._tree, self._state)

    def figures(self) -> FilterFigures | None:
        """Return the figures of the filter, which is carried out unless it is finished. All processes must call this
        together, and only the main process gets the figures of what is carried out now."""
        self._on_main(self._open)
        if (stored := self.folder.summary()) is not None:
            return FilterFigures.of(stored)
        self._on_main(self._judge)
        outcome = outcome_of_rules(self._samples, self.folder, self._section)
        if self._state is not None:
            self._ask(outcome, self._state)
            arguments = (self._samples, self.folder, self._section, self._tree, self._config.seed)
            outcome = with_judgements(outcome, *arguments)
        return self._on_main(lambda: self._write(outcome))

    def _opened(self) -> Samples:
        """Return the rows. The main process opens them first, so that what it fetches or indexes is done once."""
        config = self._config

        def opened() -> Samples:
            return Samples(config.data.train, "data.train", config.data.allow_remote, config.cache_folder)

        if self._state is None:
            return opened()
        from qwenvl_train.run.rows import first_then_others

        return first_then_others(self._state, opened)

    def _on_main(self, work: Callable[[], Made]) -> Made | None:
        """Return the result of `work` on the main process. If it fails, all processes raise the same UserError."""
        if self._state is None:
            return work()
        from qwenvl_train.training.distributed.store import call_on_main

        return call_on_main(self._state, work)

    def _open(self) -> None:
        self.folder.open(self._settings())
        for line in self._samples.describe():
            self._tell(line)

    def _settings(self) -> dict[str, Any]:
        """Return everything that the results follow from, as plain data."""
        section = self._section
        sections: dict[str, Any] = {rule.name: settings.model_dump(mode="json") for rule, settings in section.used}
        if section.duplicates.use != "off":
            sections["duplicates"] = section.duplicates.model_dump(mode="json")
        sections |= {name: getattr(section, name).model_dump(mode="json") for name in model_rules(section)}
        if self._judge_model is not None:
            sections |= {"judge": self._judge_model.identity, "seed": self._config.seed}
        if CLASSES in sections:
            tree = {domain: {name: one.model_dump() for name, one in of.items()} for domain, of in self._tree.items()}
            sections[CLASSES]["tree"] = tree
        code = {package: version(package) for package in ("qwenvl-train", *PACKAGES.values())}
        if section.unwanted.use != "off" and section.unwanted.words is not None:
            sections["unwanted"] |= {"patterns": digest(repr(patterns_in(section.unwanted.words)))}
        entries = [entry.config.model_dump(mode="json") for entry in self._samples.entries]
        facts = {"data": self._samples.fingerprint(), "entries": entries, "packages": code}
        return plain({**facts, "examples": section.examples, **sections})

    def _judge(self) -> None:
        """Judge the rows that are not judged yet, each by itself."""
        self._refuse_full_disk()
        samples, section = self._samples, self._section
        missing = [rows for rows in self._chunks if not self.folder.by_rules.has(rows)]

        def judged(rows: range) -> pa.Table:
            judgements = [judge_row(samples, row, section) for row in rows]
            return table_of(judgements, rules_in(section), compared=section.duplicates.use != "off")

        start, done = monotonic(), 0
        with counting("judging rows", sum(map(len, missing)), tell=self._tell) as progress:
            found = forked_map(judged, missing, self._processes(missing), _KILLED)
            for rows, table in zip(missing, found, strict=True):
                self.folder.by_rules.save(rows, table)
                done += len(rows)
                progress(done)
        self._tell(_in_words("judged", done, len(samples), monotonic() - start))

    def _ask(self, outcome: Outcome, state: "PartialState") -> None:
        """Have a model judge the rows that no rule leaves out. Each process judges its share of them."""
        missing = [rows for rows in self._chunks if not self.folder.by_model.has(rows)]
        state.wait_for_everyone()  # until all have read the folder
        mine = missing[state.process_index :: state.num_processes]
        left_out = ~outcome.kept
        judge, start, done = self._judge_model, monotonic(), 0
        assert judge is not None
        total = sum(int((~left_out[rows.start : rows.stop]).sum()) for rows in mine)
        with counting("asking the model", total, state.is_main_process, self._tell) as progress:
            for rows in mine:
                out = left_out[rows.start : rows.stop].tolist()
                self.folder.by_model.save(rows, judge.table(self._samples, rows, out))
                done += out.count(False)
                progress(done)
        state.wait_for_everyone()
        if state.is_main_process:
            self._tell(_in_words("judged by a model", done, int(outcome.kept.sum()), monotonic() - start))

    def _processes(self, chunks: list[range]) -> int:
        return min(self._config.data.workers, len(chunks))

    def _write(self, outcome: Outcome) -> FilterFigures:
        """Write all results. The summary is written last, and says that the filter is finished."""
        samples, folder = self._samples, self.folder
        kept = KeptFiles(samples, outcome, self._tree)
        with counting("writing rows", len(samples), tell=self._tell) as progress:
            for done in write_rows(samples, outcome, folder, kept, self._chunks, self._processes(self._chunks)):
                progress(done)
        write_verdicts(samples, outcome, folder)
        write_entries(samples, kept, folder)
        figures = figures_of(samples, outcome, folder, described_rules(self._section))
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


def _joined(config: FilterConfig) -> "PartialState":
    from qwenvl_train.training.distributed.processes import join_processes

    return join_processes(config)


def _in_words(judged: str, done: int, rows: int, seconds: float) -> str:
    if not done:
        return f"all {many(rows, 'row')} are {judged} from before"
    before = f"; {many(rows - done, 'further row')} from before" if rows > done else ""
    rate = done / max(seconds, 1e-9)
    speed = count(rate) if rate >= 100 else f"{rate:.1f}"
    return f"{many(done, 'row')} {judged} in {duration(seconds)}, {speed} a second{before}"
