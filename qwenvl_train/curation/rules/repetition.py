"""How much of a text repeats. The definitions are those of Gopher (Rae et al. 2021, appendix A.1.1)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from qwenvl_train.curation.verdict import Verdict, above, quoted


def repeated_words(words: Sequence[str], count: int) -> tuple[float, str]:
    """Return the share of the characters of words that are in a sequence of `count` words that occurred before, and the
    sequence that occurs most often.

    This is Gopher's duplicate n-gram character fraction, as datatrove counts it: the first occurrence does not count,
    and a character in several repeated sequences counts once. Where only numbers repeat, the share is 0, since tables
    have many equal ones.
    """
    # A sequence that occurs again has count - 1 pairs of words in it that occur again.
    if len(words) - 1 - len(set(pairwise(words))) < count - 1:
        return 0.0, ""
    sequences = list(zip(*(words[start:] for start in range(count)), strict=False))
    if len(set(sequences)) == len(sequences):
        return 0.0, ""
    seen = dict.fromkeys(sequences, 0)
    covered = bytearray(len(words))
    for start, sequence in enumerate(sequences):
        if seen[sequence]:
            covered[start : start + count] = b"\1" * count
        seen[sequence] += 1
    repeated = [word for word, is_covered in zip(words, covered, strict=True) if is_covered]
    if all(word.isdecimal() for word in repeated):
        return 0.0, ""
    most = max(seen, key=lambda sequence: seen[sequence])
    return sum(map(len, repeated)) / sum(map(len, words)), joined(most)


def repeated_pieces(pieces: Sequence[str], least: int) -> tuple[float, str]:
    """Return the share of the characters of lines or sentences that occurred before, and the most frequent one.

    This is Gopher's duplicate line character fraction, as datatrove counts it. Pieces of fewer than `least` characters
    do not count as repeated.
    """
    if len(set(pieces)) == len(pieces):
        return 0.0, ""
    counts = Counter(pieces)
    repeated = {piece: count for piece, count in counts.items() if count > 1 and len(piece) >= least}
    if not repeated:
        return 0.0, ""
    again = sum(len(piece) * (count - 1) for piece, count in repeated.items())
    return again / sum(map(len, pieces)), max(repeated, key=lambda piece: repeated[piece])


def of_pieces(
    texts: Iterable[Sequence[str]], least: int, min_length: int, max_share: float, what: str
) -> Verdict | None:
    """Return the verdict on texts in pieces, which are lines or sentences, as `what` says. Those of fewer than `least`
    pieces are not judged."""
    found = [repeated_pieces(pieces, min_length) for pieces in texts if len(pieces) >= least]
    if not found:
        return None
    share, piece = max(found)
    return above(share, max_share, lambda: f"{share:.0%} of the text are repeated {what}, such as {quoted(piece)}")


def joined(words: Sequence[str]) -> str:
    """Return words as a text, without spaces in scripts that have none."""
    return "".join(words) if all(len(word) == 1 for word in words) else " ".join(words)
