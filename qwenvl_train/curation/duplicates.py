"""Rows that are nearly the same as others: alike in their texts, in their pictures, or in both.

Texts are compared by MinHash, which estimates the share of word sequences that two texts have in common, and pictures
by perceptual hashes. Only rows that agree in a band of the MinHash, and in a block of the bits of a picture, are
compared with each other, so that the work grows with the number of rows and not with its square.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, PositiveInt

from qwenvl_train.curation.rules.rule import Described, Measure, RuleSection
from qwenvl_train.curation.view import AnswerView, RowView
from qwenvl_train.data.sample import Image, Part, Text, Video

PERMUTATIONS = 128
_SEED = 1
_HASH_BITS = 64
_CHUNK = 2**16
"""Number of pairs that are compared at a time."""
_NEAR = 4
_SYMBOLS = re.compile(r"[-+*/=<>^%×÷±≤≥√$€£]")
"""Signs that words do not have, and that change what a text says. All of them together count as one sequence."""
_FOUND = 0.99
_SHORT_ANSWER = 8
"""The most words of an answer of which each has to be the same. The estimate of the similarity is too rough for it."""


class Duplicates(RuleSection):
    by: Literal["row", "text", "images"]
    """What must be alike: texts and pictures, the texts alone, or the images alone. With row, rows without images are
    compared by their texts. With images, they are not compared."""
    words: PositiveInt
    """The number of consecutive words in the sequences of which two texts have a share in common."""
    min_similarity: Annotated[float, Field(gt=0, le=1)]
    """The least share of sequences in common at which two texts are alike."""
    max_bits: Annotated[int, Field(ge=0, le=32)]
    """The largest number of the 64 bits of their hashes in which two alike pictures differ."""


def described_duplicates(settings: Duplicates) -> Described:
    """Return what the figures of near-duplicates are shown with."""
    by_images = Measure("largest difference from the images of the earlier row", "of 64 bits")
    by_text = Measure("share of word sequences that the earlier row has, too", "%")
    measure = by_images if settings.by == "images" else by_text
    return Described("duplicates", "nearly the same as an earlier row", False, measure=measure)


class Alike(NamedTuple):
    """A row and an earlier one that it is nearly the same as."""

    row: int
    first: int
    similarity: float
    """The estimated share of word sequences that their texts have in common."""
    bits: int
    """The largest number of bits in which the hashes of two of their pictures differ."""
    pictures: int
    """The number of their pictures."""


@dataclass(frozen=True)
class AlikeRows:
    """Rows that are nearly the same as an earlier one, in order, as columns, since there may be millions. They have the
    fields of `Alike`, each [alike rows]."""

    rows: np.ndarray
    firsts: np.ndarray
    similarity: np.ndarray
    bits: np.ndarray
    pictures: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Alike:
        columns = (self.rows, self.firsts, self.similarity, self.bits, self.pictures)
        return Alike(*(column[place].item() for column in columns))


@dataclass(frozen=True)
class Signature:
    """What is compared of a row."""

    sequences: Sequence[str]
    """The word sequences of the text, of which a MinHash is made."""
    pictures: tuple[int, ...] | None
    """The perceptual hash of each picture. None if a picture cannot be read, so that the row equals no other."""
    rest: int = 0
    """A hash of what must be the same in rows that are alike: tools and calls, boxes, rejected answers, roles."""


def signature(row: RowView, length: int, exact: bool = False, by_text: bool = True) -> Signature:
    """Return what is compared of a row.

    Args:
        length: The number of words of a sequence.
        exact: Whether texts are only alike if they are the same to the letter.
        by_text: Whether short answers must have the same words.
    """
    return Signature(_sequences(row, length), _hashes(row), _rest(row, exact, by_text))


def _sequences(row: RowView, length: int) -> list[str]:
    given = row.words
    sequences = list(map(" ".join, zip(*(given[start:] for start in range(length)), strict=False)))
    sequences.append("".join(_SYMBOLS.findall(row.text)))
    if len(given) < length:
        sequences.append(" ".join(given))
    return sequences


def minhashes(texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the MinHash of each text as datasketch computes it, [texts, PERMUTATIONS] uint32. Many texts at a time
    take less time, since the work on a single one is small."""
    import xxhash

    encoded = map(str.encode, chain.from_iterable(texts))
    hashes = _spread(np.fromiter(map(xxhash.xxh32_intdigest, encoded), np.uint32, sum(map(len, texts))))
    factors, summands = _permutations()
    found = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    start = 0
    for place, text in enumerate(texts):
        permuted = np.multiply.outer(hashes[start : start + len(text)], factors)
        permuted += summands
        permuted.min(axis=0, out=found[place])
        start += len(text)
    return found


def _spread(hashes: np.ndarray) -> np.ndarray:
    """Return hashes whose bits are mixed, as MurmurHash3 does it at its end, [sequences] uint32."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


@cache
def _permutations() -> np.ndarray:
    """Return the factors and summands of datasketch's permutations, [2, PERMUTATIONS] uint32."""
    from datasketch import MinHash

    return MinHash(PERMUTATIONS, _SEED).permutations


def _hashes(row: RowView) -> tuple[int, ...] | None:
    pictures = iter(row.pictures)
    found: list[int | None] = []
    for media in row.sample.media:
        # Clips are the same if their files are.
        found.append(_digest(media) if isinstance(media, Video) else next(pictures).hash)
    return None if None in found else tuple(one for one in found if one is not None)


def _rest(row: RowView, exact: bool, by_text: bool) -> int:
    """Return a hash of everything in a row that is neither a word nor a picture or clip. With `exact`, words count.
    With `by_text`, those of short answers count: one word of them is as much as a whole answer."""
    sample, answers = row.sample, iter(row.answers)

    def without_words(part: Part) -> object:
        return "" if isinstance(part, Text) and not exact else part

    turns = [
        (
            turn.role,
            turn.train,
            turn.calls,
            turn.thoughts if exact else None,
            _short_answer(next(answers)) if turn.train and by_text else None,
            *(without_words(part) for part in turn.parts if not isinstance(part, Image | Video)),
        )
        for turn in sample.turns
    ]
    rejected = [(turn.role, turn.thoughts, turn.calls, turn.parts) for turn in sample.rejected]
    digest = hashlib.sha256(repr((turns, rejected, sample.tools, sample.accepted, sample.targets)).encode())
    return int.from_bytes(digest.digest()[:8], "little")


def _short_answer(answer: AnswerView) -> tuple[str, ...] | None:
    words = answer.passage.words
    return tuple(words) if len(words) <= _SHORT_ANSWER else None


def _digest(video: Video) -> int:
    digest = hashlib.sha256(repr(video.sampling).encode())
    for content in video.contents:
        digest.update(content if isinstance(content, bytes) else content.encode())
    return int.from_bytes(digest.digest()[:8], "little")


@dataclass(frozen=True)
class Signatures:
    """The signatures of all rows."""

    texts: np.ndarray
    """[rows, PERMUTATIONS] uint32."""
    pictures: np.ndarray
    """[rows, most pictures] uint64, with zeros after the last picture of a row."""
    counts: np.ndarray
    """[rows]: number of pictures. -1 for a row that is not compared."""
    rest: np.ndarray
    """[rows] uint64: a hash of what must be the same."""


def alike_rows(signatures: Signatures, settings: Duplicates) -> AlikeRows:
    """Return the rows that are nearly the same as an earlier one. Of rows that are alike, the first stays."""
    compared = signatures.counts > 0 if settings.by == "images" else signatures.counts >= 0
    rows, count = np.flatnonzero(compared), len(signatures.counts)
    edges = np.zeros(0, dtype=np.int64)
    """Pairs of rows that are alike, each as the first row times `count` plus the other one."""
    for some, keys in _keys(signatures, rows, settings):
        pairs = _pairs(signatures, some, keys)
        new = pairs[~np.isin(pairs, edges, assume_unique=True)]
        edges = np.union1d(edges, new[_are_alike(signatures, *np.divmod(new, count), settings)])
    return _with_firsts(signatures, *np.divmod(edges, count), settings)


def _keys(signatures: Signatures, rows: np.ndarray, settings: Duplicates) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield some of the rows with a key for each, uint64. Rows that are alike have the same key at least once, with a
    high probability for texts, and always for pictures."""
    if settings.by == "text":
        yield from ((rows, band) for band in _bands(signatures.texts, rows, settings.min_similarity))
        return
    with_pictures = signatures.counts[rows] > 0
    counts = signatures.counts[rows][with_pictures].astype(np.uint64)
    blocks = _blocks(signatures.pictures, rows[with_pictures], settings.max_bits)
    of_pictures = [_mixed([counts, block]) for block in blocks]
    if settings.by == "images":
        yield from ((rows, block) for block in of_pictures)
        return
    for band in _bands(signatures.texts, rows, settings.min_similarity):
        yield rows[~with_pictures], band[~with_pictures]
        yield from ((rows[with_pictures], _mixed([band[with_pictures], block])) for block in of_pictures)


def _bands(texts: np.ndarray, rows: np.ndarray, min_similarity: float) -> Iterator[np.ndarray]:
    length = _rows_of_band(min_similarity)
    for start in range(0, PERMUTATIONS - length + 1, length):
        # One column at a time, since all of them may be larger than the memory.
        yield _mixed([texts[:, column][rows].astype(np.uint64) for column in range(start, start + length)])


def _rows_of_band(min_similarity: float) -> int:
    """Return the largest number of values in a band at which texts that are just alike have an equal band with a
    probability of at least _FOUND."""
    lengths = range(PERMUTATIONS, 1, -1)
    found = ((length, 1 - (1 - min_similarity**length) ** (PERMUTATIONS // length)) for length in lengths)
    return next((length for length, probability in found if probability >= _FOUND), 1)


def _blocks(pictures: np.ndarray, rows: np.ndarray, max_bits: int) -> Iterator[np.ndarray]:
    """Yield parts of the hashes of the first pictures. Two hashes that differ in at most `max_bits` bits are equal in
    at least one of the max_bits + 1 parts."""
    first = pictures[rows, 0] if pictures.shape[1] else np.zeros(len(rows), dtype=np.uint64)
    borders = np.linspace(0, _HASH_BITS, max_bits + 2).round().astype(int).tolist()
    for low, high in pairwise(borders):
        yield first & np.uint64((1 << high) - (1 << low))


def _mixed(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return one hash of several columns of uint64."""
    mixed = np.full(len(columns[0]), 0x9E3779B97F4A7C15, dtype=np.uint64)
    for column in columns:
        mixed = (mixed ^ column) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _pairs(signatures: Signatures, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return pairs of rows that may be alike, as numbers like those in `alike_rows`. Of the rows with one key, which
    are sorted by their first pictures, each is paired with the first one and with the _NEAR ones before it."""
    pictures = signatures.pictures[rows, 0] if signatures.pictures.shape[1] else np.zeros(len(rows), dtype=np.uint64)
    order = np.lexsort((rows, pictures, keys))
    ordered, places = rows[order].astype(np.int64), np.arange(len(order))
    starts = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])[: len(order)]
    first = np.maximum.accumulate(np.where(starts, places, 0))
    found = [np.stack([ordered[first], ordered])]
    for back in range(1, _NEAR + 1):
        near = places[places - back >= first]
        found.append(np.stack([ordered[near - back], ordered[near]]))
    low, high = np.sort(np.concatenate(found, axis=1), axis=0)
    return np.unique((low * len(signatures.counts) + high)[low != high])


def _are_alike(signatures: Signatures, one: np.ndarray, other: np.ndarray, settings: Duplicates) -> np.ndarray:
    """Return whether two rows are nearly the same, [pairs]."""
    found = [np.zeros(0, dtype=bool)]
    for start in range(0, len(one), _CHUNK):
        found.append(are_alike(signatures, one[start : start + _CHUNK], other[start : start + _CHUNK], settings))
    return np.concatenate(found)


def are_alike(signatures: Signatures, one: np.ndarray, other: np.ndarray, settings: Duplicates) -> np.ndarray:
    """Return whether two rows are nearly the same, [pairs]. All pairs are compared at a time."""
    alike = signatures.rest[one] == signatures.rest[other]
    if settings.by != "images":
        alike &= similarity(signatures, one, other) >= settings.min_similarity
    if settings.by != "text":
        alike &= differing_bits(signatures, one, other) <= settings.max_bits
    return alike


def similarity(signatures: Signatures, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the estimated share of word sequences that the texts of two rows have in common, [pairs]."""
    return (signatures.texts[one] == signatures.texts[other]).mean(axis=1)


def differing_bits(signatures: Signatures, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the largest number of bits in which two pictures at the same place differ, [pairs]. Rows with different
    numbers of pictures differ in all bits."""
    bits = np.bitwise_count(signatures.pictures[one] ^ signatures.pictures[other]).max(axis=1, initial=0)
    return np.where(signatures.counts[one] == signatures.counts[other], bits, _HASH_BITS)


def _with_firsts(signatures: Signatures, ones: np.ndarray, others: np.ndarray, settings: Duplicates) -> AlikeRows:
    """Return the rows that are alike to the first row that stays of those they are connected with. Rows that are only
    alike to others that are left out stay, unless they are alike to one of them that stays."""
    pairs = [np.zeros((2, 0), dtype=np.int64)]
    while len(ones):
        firsts = _firsts(len(signatures.counts), ones, others)
        later = np.flatnonzero(firsts != np.arange(len(firsts)))
        same = later[_are_alike(signatures, later, firsts[later], settings)]
        pairs.append(np.stack([same, firsts[same]]))
        done = np.zeros(len(firsts), dtype=bool)
        done[same] = done[firsts[later]] = True
        left = ~done[ones] & ~done[others]
        ones, others = ones[left], others[left]
    return _compared(signatures, *np.concatenate(pairs, axis=1))


def _compared(signatures: Signatures, rows: np.ndarray, firsts: np.ndarray) -> AlikeRows:
    """Return alike rows in order, with how much they have in common with their first ones."""
    order = np.argsort(rows)
    rows, firsts = rows[order], firsts[order]
    shares, bits = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _CHUNK):
        some = slice(start, start + _CHUNK)
        shares[some] = similarity(signatures, rows[some], firsts[some])
        bits[some] = differing_bits(signatures, rows[some], firsts[some])
    return AlikeRows(rows, firsts, shares, bits, signatures.counts[rows])


def _firsts(rows: int, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return, for each row, the first of the rows that pairs connect it with, [rows]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(ones), dtype=bool), (ones, others)), shape=(rows, rows))
    _, cluster = connected_components(graph, directed=False)
    _, first = np.unique(cluster, return_index=True)
    return first[cluster]
