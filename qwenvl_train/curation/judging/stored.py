"""The figures of prompts about some rows. An engine computes those that are not stored, which then are."""

from collections.abc import Mapping, Sequence

from qwenvl_train.curation.judging.engine import Asked, Engine
from qwenvl_train.curation.judging.prompts import Figures, Prompt
from qwenvl_train.curation.judging.store import JudgementStore, content_of, key_of
from qwenvl_train.data.sample import Sample
from qwenvl_train.errors import UserError, message_of


class StoredFigures:
    def __init__(self, engine: Engine, store: JudgementStore, samples: Sequence[Sample]):
        """
        Args:
            samples: Conversations, not preference pairs.
        """
        self._engine, self._store, self._samples = engine, store, samples
        self.problems: dict[int, str] = {}
        """Why samples cannot be judged, by their number."""
        self._contents = [self._content(number, sample) for number, sample in enumerate(samples)]

    def _content(self, number: int, sample: Sample) -> str:
        try:
            return content_of(sample)
        except UserError as error:
            self.problems[number] = message_of(error)
            return ""

    def ask(self, wanted: Mapping[int, tuple[Prompt, ...]]) -> dict[int, dict[Prompt, Figures]]:
        """Return the figures of the prompts about each sample, by the number of the sample. Samples that turn out to be
        problems have none. Whatever was computed is stored, also if an error ends the call."""
        keys = {
            number: {prompt: key_of(self._engine.identity, prompt, self._contents[number]) for prompt in prompts}
            for number, prompts in wanted.items()
        }
        stored = self._store.read(key for of_row in keys.values() for key in of_row.values())
        missing = [
            Asked(number, self._samples[number], prompts)
            for number, of_row in keys.items()
            if (prompts := tuple(prompt for prompt, key in of_row.items() if key not in stored))
        ]
        asked = {one.number: one.prompts for one in missing}
        self._engine.proven |= bool(stored)
        for group in self._engine.answers(missing) if missing else ():
            self.problems.update((one.number, one.problem) for one in group if one.problem is not None)
            new = {
                keys[answered.number][prompt]: figures
                for answered in group
                if answered.problem is None
                for prompt, figures in zip(asked[answered.number], answered.figures, strict=True)
            }
            self._store.write(new)
            stored |= new
        return {
            number: {prompt: stored[key] for prompt, key in of_row.items() if key in stored}
            for number, of_row in keys.items()
        }
