"""All samples of data.train or data.eval as one sequence, read from their files when asked for."""

from bisect import bisect_right
from itertools import accumulate

from qwenvl_train.config.schema import SourceConfig
from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.sources import open_source


class Samples:
    def __init__(self, configs: tuple[SourceConfig, ...], key: str):
        self.sources = [open_source(config, key) for config in configs]
        self._ends = list(accumulate(len(source) for source in self.sources))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        which = bisect_right(self._ends, index)
        source = self.sources[which]
        row = index - (self._ends[which - 1] if which else 0)
        return to_sample(source.row(row), source.name, source.line(row), source.folder, source.format)
