"""What is known of a sample before its pictures are decoded: tokens, labels, positions, and which tokens see which."""

from dataclasses import dataclass, replace

import numpy as np

from qwenvl_train.batch import Piece
from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize

IGNORED = -100


@dataclass(frozen=True)
class TurnStart:
    role: str
    token: int


@dataclass(frozen=True)
class Layout:
    """All that is known of a sample before its pictures are decoded."""

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray
    media: tuple[PictureSize | ClipSize, ...]
    """In the order of their placeholders."""
    turns: tuple[TurnStart, ...]
    shrink: float
    """Share of the pixels that the media keep; below 1 where the sample was downscaled to fit."""
    pieces: tuple[Piece, ...]
    """Which tokens see which: a conversation is one piece; a pair the shared question and both answers, or, where
    nothing is shared, two conversations."""

    @property
    def length(self) -> int:
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        return int((self.labels != IGNORED).sum())

    @property
    def answers(self) -> tuple[int, ...]:
        """Of a pair: how many tokens are learned of the chosen and of the rejected answer."""
        if len(self.pieces) == 1:
            return ()
        counts = np.add.reduceat(self.labels != IGNORED, self._starts, dtype=np.int64)
        return tuple(counts[-2:].tolist())

    @property
    def learned(self) -> np.ndarray:
        """The places of what is learned."""
        return np.flatnonzero(self.labels != IGNORED)

    @property
    def predictor_positions(self) -> np.ndarray:
        """The places whose states tell it."""
        before = np.arange(-1, self.length - 1)
        for piece, start in zip(self.pieces, self._starts, strict=True):
            if piece.context:
                before[start] = piece.context - 1
        return before[self.learned]

    @property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(piece.length for piece in self.pieces)])[:-1]

    @property
    def patches(self) -> int:
        """What the vision tower sees."""
        return sum(int(np.prod(size.grid)) for size in self.media)

    @property
    def pictures(self) -> tuple[PictureSize, ...]:
        return tuple(size for size in self.media if isinstance(size, PictureSize))

    @property
    def clips(self) -> tuple[ClipSize, ...]:
        return tuple(size for size in self.media if isinstance(size, ClipSize))


def pair(chosen: Layout, rejected: Layout, shared: bool, shared_media: int) -> Layout:
    """Two conversations as one sample. The question that they share comes once: both answers see it, and not each
    other, and stand where each would if it stood alone. Without one they lie side by side."""
    start = int(chosen.learned[0]) if shared else 0
    assert np.array_equal(chosen.input_ids[:start], rejected.input_ids[:start])
    answers = (Piece(chosen.length - start, start), Piece(rejected.length - start, start))
    # The answers' turns have begun with the last tokens of the question.
    asked = max(0, sum(turn.token < start for turn in chosen.turns) - 1)
    won = [replace(turn, role=f"{turn.role}, chosen") for turn in chosen.turns[asked:]]
    lost = [
        TurnStart(f"{turn.role}, rejected", max(turn.token, start) - start + chosen.length)
        for turn in rejected.turns[asked:]
    ]
    return Layout(
        input_ids=np.concatenate([chosen.input_ids, rejected.input_ids[start:]]),
        labels=np.concatenate([chosen.labels, rejected.labels[start:]]),
        position_ids=np.concatenate([chosen.position_ids, rejected.position_ids[:, start:]], axis=1),
        media=chosen.media + rejected.media[shared_media:],
        turns=(*chosen.turns[:asked], *won, *lost),
        shrink=chosen.shrink,
        pieces=(Piece(start), *answers) if start else answers,
    )
