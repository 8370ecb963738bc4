"""The layout of a sample, known before its media are decoded: tokens, labels, positions, and pieces for attention."""

from collections.abc import Sequence
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
    """Everything that is known of a sample before its media are decoded."""

    input_ids: np.ndarray
    """[tokens]: token ids."""
    labels: np.ndarray
    """[tokens]: the token id at learned tokens, IGNORED elsewhere."""
    position_ids: np.ndarray
    """[4, tokens]: the position in the sample, then the M-RoPE positions in time, height and width."""
    media: tuple[PictureSize | ClipSize, ...]
    """Sizes of the pictures and clips, in the order of their placeholder tokens."""
    turns: tuple[TurnStart, ...]
    shrink: float
    """Share of the pixels that the media keep. It is below 1 if the sample was downscaled to fit."""
    pieces: tuple[Piece, ...]
    """The pieces that attention keeps apart. A conversation is one piece. A preference pair has three, the shared
    question and both answers, or two, the conversations, if nothing is shared."""

    @property
    def length(self) -> int:
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        return int((self.labels != IGNORED).sum())

    @property
    def answers(self) -> tuple[int, ...]:
        """Number of learned tokens in the chosen and in the rejected answer of a preference pair; empty otherwise."""
        if len(self.pieces) == 1:
            return ()
        counts = np.add.reduceat(self.labels != IGNORED, self._starts, dtype=np.int64)
        return tuple(counts[-2:].tolist())

    @property
    def learned(self) -> np.ndarray:
        """[learned tokens]: positions of the learned tokens."""
        return np.flatnonzero(self.labels != IGNORED)

    @property
    def predictor_positions(self) -> np.ndarray:
        """[learned tokens]: position of the hidden state that predicts each learned token."""
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
        """Number of patches that the vision tower processes."""
        return sum(int(np.prod(size.grid)) for size in self.media)

    @property
    def pictures(self) -> tuple[PictureSize, ...]:
        return tuple(size for size in self.media if isinstance(size, PictureSize))

    @property
    def clips(self) -> tuple[ClipSize, ...]:
        return tuple(size for size in self.media if isinstance(size, ClipSize))


def preference_pair(chosen: Layout, rejected: Layout, shared: bool, shared_media: int) -> Layout:
    """Return the layout of two conversations as one sample.

    A question that they share occurs once. Both answers attend to it but not to each other, and each answer has the
    positions that it would have alone. Without a shared question, the conversations are laid end to end.
    """
    start = _shared_tokens(chosen, rejected) if shared else 0
    answers = (Piece(chosen.length - start, start), Piece(rejected.length - start, start))
    # The answers' turns begin with the last tokens of the shared question, so the last turn before `start` is theirs.
    question_turns = max(0, sum(turn.token < start for turn in chosen.turns) - 1)
    chosen_turns = [replace(turn, role=f"{turn.role}, chosen") for turn in chosen.turns[question_turns:]]
    rejected_turns = [
        TurnStart(f"{turn.role}, rejected", max(turn.token, start) - start + chosen.length)
        for turn in rejected.turns[question_turns:]
    ]
    return Layout(
        input_ids=np.concatenate([chosen.input_ids, rejected.input_ids[start:]]),
        labels=np.concatenate([chosen.labels, rejected.labels[start:]]),
        position_ids=np.concatenate([chosen.position_ids, rejected.position_ids[:, start:]], axis=1),
        media=chosen.media + rejected.media[shared_media:],
        turns=(*chosen.turns[:question_turns], *chosen_turns, *rejected_turns),
        shrink=chosen.shrink,
        pieces=(Piece(start), *answers) if start else answers,
    )


def branched(base: Layout, branches: Sequence[Layout]) -> Layout:
    """Return the layout of a conversation and of others that begin like it, as one sample.

    What a branch has in common with the base occurs once, with the labels of the base. Each branch attends to it, but
    not to the other branches or to the rest of the base, and has the positions that it would have alone. All media of a
    branch must be in what it shares.
    """
    shared = [shared_beginning(base, branch) for branch in branches]
    parts = list(zip(branches, shared, strict=True))
    return replace(
        base,
        input_ids=np.concatenate([base.input_ids, *(branch.input_ids[at:] for branch, at in parts)]),
        labels=np.concatenate([base.labels, *(branch.labels[at:] for branch, at in parts)]),
        position_ids=np.concatenate(
            [base.position_ids, *(branch.position_ids[:, at:] for branch, at in parts)], axis=1
        ),
        pieces=(*base.pieces, *(Piece(branch.length - at, at) for branch, at in parts)),
    )


def shared_beginning(base: Layout, branch: Layout) -> int:
    """Return the number of tokens with which both begin, without the last token of the branch."""
    most = min(base.length, branch.length - 1)
    different = np.flatnonzero(base.input_ids[:most] != branch.input_ids[:most])
    return int(different[0]) if len(different) else most


def _shared_tokens(chosen: Layout, rejected: Layout) -> int:
    """Return the number of tokens before the answers. If only one of the answers has thoughts, the answers differ
    before their first learned token."""
    before = min(int(chosen.learned[0]), int(rejected.learned[0]))
    different = np.flatnonzero(chosen.input_ids[:before] != rejected.input_ids[:before])
    return int(different[0]) if len(different) else before
