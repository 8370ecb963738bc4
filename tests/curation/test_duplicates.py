"""Rows that are nearly the same, compared with all pairs of rows by exact sets of word sequences."""

from dataclasses import replace
from itertools import combinations

import imagehash
import numpy as np
import pytest
import xxhash
from datasketch import MinHash
from PIL import Image as Pillow

from qwenvl_train.curation import duplicates
from qwenvl_train.curation.duplicates import Alike, Duplicates, Signatures, alike_rows, minhashes, signature
from qwenvl_train.curation.text import words
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.sample import Image, Sample, Text, Turn, Video

WORDS = [f"word{number}" for number in range(400)]
BY_ROW = Duplicates(use="drop", by="row", words=3, min_similarity=0.7, max_bits=6)


def row(answer: str, *media, line: int = 1) -> RowView:
    turns = (Turn("user", (*media, Text("What is it?")), False), Turn("assistant", (Text(answer),), True))
    return RowView(Sample(str(line), "rows.jsonl", line, turns))


def together(rows: list[RowView], length: int = 3, by_text: bool = True) -> Signatures:
    found = [signature(one, length, by_text=by_text) for one in rows]
    counts = np.array([-1 if one.pictures is None else len(one.pictures) for one in found])
    pictures = np.zeros((len(rows), max(0, counts.max())), dtype=np.uint64)
    for place, one in enumerate(found):
        pictures[place, : max(0, counts[place])] = one.pictures or ()
    rest = np.array([one.rest for one in found], dtype=np.uint64)
    return Signatures(minhashes([one.sequences for one in found]), pictures, counts, rest)


def sequences(text: str, length: int = 3) -> set[tuple[str, ...]]:
    given = words(text)
    return {tuple(given[start : start + length]) for start in range(max(1, len(given) - length + 1))}


def in_common(one: RowView, other: RowView) -> float:
    mine, theirs = sequences(one.text), sequences(other.text)
    return len(mine & theirs) / len(mine | theirs)


@pytest.fixture(scope="module")
def texts() -> list[RowView]:
    """100 texts, and for each of the first 60 a copy with some words changed."""
    rng = np.random.default_rng(0)
    given = [rng.choice(WORDS, 60).tolist() for _ in range(100)]
    for number in range(60):
        changed = list(given[number])
        for place in rng.choice(60, number % 8, replace=False):
            changed[place] = "changed"
        given.append(changed)
    return [row(" ".join(text), line=number) for number, text in enumerate(given, start=1)]


def test_texts_with_enough_sequences_in_common_are_found(texts):
    exact = {pair: in_common(texts[pair[0]], texts[pair[1]]) for pair in combinations(range(len(texts)), 2)}
    found = alike_rows(together(texts), BY_ROW)
    # The estimate of 128 permutations has a standard deviation of at most 0.044; the worst was 0.110.
    assert max(abs(one.similarity - exact[one.first, one.row]) for one in found) < 0.16
    assert {one.row for one in found} >= {later for (_, later), share in exact.items() if share >= 0.8}
    assert all(exact[one.first, one.row] > 0.55 for one in found)
    assert 30 < len(found) < 60  # those with more changes are not alike


def test_of_alike_rows_the_first_stays_and_each_other_is_alike_to_one_that_stays():
    chain = [WORDS[start : start + 60] for start in range(0, 60, 6)]  # neighbours are alike, the ends are not
    signatures = together([row(" ".join(text)) for text in chain])
    found = alike_rows(signatures, BY_ROW)
    left_out = {one.row for one in found}
    assert 0 not in left_out
    assert left_out
    assert len(left_out) < len(chain) - 1
    assert all(one.first not in left_out and one.similarity >= 0.7 and one.first < one.row for one in found)


@pytest.mark.parametrize("text", ["one two three four", "one two", "", "3 + 4 = 7, naïve", "图片中有一只狗"])
def test_the_minhash_is_that_of_datasketch(text):
    given = RowView(Sample("1", "rows.jsonl", 1, (Turn("assistant", (Text(text),), True),)))
    hashed = MinHash(duplicates.PERMUTATIONS, seed=1, hashfunc=xxhash.xxh32_intdigest)
    hashed.update_batch([" ".join(sequence).encode() for sequence in sequences(text)])
    hashed.update("".join(sign for sign in text if sign in "+=").encode())
    texts = [signature(given, 3).sequences, ["another text"]]
    assert minhashes(texts)[0].tolist() == hashed.hashvalues.tolist()


def draw(path, seed: int, noise: int = 0) -> Image:
    blocks = Pillow.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(blocks.resize((120, 90), Pillow.Resampling.BICUBIC), dtype=np.int16)
    noisy = pixels + np.random.default_rng(noise).integers(-noise, noise + 1, pixels.shape)
    Pillow.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
    return Image(str(path))


@pytest.mark.parametrize(
    ("by", "left_out"),
    [("row", [3]), ("text", [1, 3, 5, 6]), ("images", [2, 3])],
)
def test_what_must_be_alike(tmp_path, by, left_out):
    one, other = draw(tmp_path / "1.png", 1), draw(tmp_path / "2.png", 2)
    again = draw(tmp_path / "again.png", 1, noise=4)
    assert imagehash.phash(Pillow.open(one.content)) - imagehash.phash(Pillow.open(again.content)) <= 6
    assert imagehash.phash(Pillow.open(one.content)) - imagehash.phash(Pillow.open(other.content)) > 6
    rows = [
        row("a red circle", one), row("a red circle", other), row("something else entirely", again),
        row("a red circle", again), row("some words without an image"), row("a red circle"),
        row("a red circle", one, other),
    ]  # fmt: skip
    found = alike_rows(together(rows, by_text=by != "images"), BY_ROW.model_copy(update={"by": by}))
    assert [one.row for one in found] == left_out
    assert {one.first for one in found} == {0}


def test_a_word_of_a_short_answer_is_as_much_as_a_whole_one():
    """The texts have many sequences in common, as those of labels do, and yet say different things."""
    question = "Look at the part in the image and say which of the many bins in the hall it has to go to. "
    labels = [f"{question} bin {name}" for name in ("A1", "B1", "A1")]
    turns = [
        (Turn("user", (Text(question),), False), Turn("assistant", (Text(one.removeprefix(question)),), True))
        for one in labels
    ]
    rows = [RowView(Sample(str(n), "rows.jsonl", n, one)) for n, one in enumerate(turns)]
    assert in_common(rows[0], rows[1]) > BY_ROW.min_similarity
    assert [(one.row, one.first) for one in alike_rows(together(rows), BY_ROW)] == [(2, 0)]


def test_many_rows_with_one_text_are_compared_by_their_pictures():
    """Texts say nothing here, and equal pictures lie far from each other."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 2**63, (3000, 1), dtype=np.uint64)
    pictures[2900:] = pictures[100:200]
    texts = np.tile(minhashes([signature(row("a red circle"), 3).sequences]), (3000, 1))
    found = alike_rows(
        Signatures(texts, pictures, np.ones(3000, dtype=int), np.zeros(3000, dtype=np.uint64)),
        BY_ROW.model_copy(update={"max_bits": 0}),
    )
    assert list(found) == [Alike(2900 + number, 100 + number, 1.0, 0, 1) for number in range(100)]


def test_a_row_whose_picture_cannot_be_read_is_like_no_other(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = Image(str(tmp_path / "broken.png"))
    assert len(alike_rows(together([row("a red circle", broken), row("a red circle", broken)]), BY_ROW)) == 0


def test_clips_are_the_same_if_their_files_and_frames_are():
    clip = Video("clip.mp4")
    rows = [row("it moves", clip), row("it moves", clip), row("it moves", replace(clip, content="other.mp4"))]
    assert [one.row for one in alike_rows(together(rows), BY_ROW)] == [1]


def test_nothing_is_alike_without_rows_or_keys():
    assert len(alike_rows(together([row("a red circle")]), BY_ROW)) == 0
    assert len(alike_rows(together([row(" ".join(WORDS[:9])), row(" ".join(WORDS[9:18]))]), BY_ROW)) == 0


def test_the_work_does_not_grow_with_the_square_of_the_rows(texts, monkeypatch):
    compared = []
    are_alike = duplicates.are_alike
    monkeypatch.setattr(duplicates, "are_alike", lambda *call: compared.append(len(call[1])) or are_alike(*call))
    alike_rows(together(texts), BY_ROW)
    assert sum(compared) < 160 * 30  # of 12,720 pairs, each counted once for each band that they agree in


def of_hashes(*pictures: tuple[int, ...]) -> Signatures:
    """Rows with one text and these hashes of pictures."""
    table = np.zeros((len(pictures), max(map(len, pictures))), dtype=np.uint64)
    for place, hashes in enumerate(pictures):
        table[place, : len(hashes)] = hashes
    texts = np.tile(minhashes([signature(row("a red circle"), 3).sequences]), (len(pictures), 1))
    counts = np.array([len(hashes) for hashes in pictures])
    return Signatures(texts, table, counts, np.zeros(len(pictures), dtype=np.uint64))


def test_rows_with_other_numbers_of_pictures_are_not_alike():
    signatures = of_hashes((7,), (7, 0))  # the table has zeros after the last picture
    pair = np.array([0]), np.array([1])
    assert duplicates.differing_bits(signatures, *pair).tolist() == [64]
    assert not duplicates.are_alike(signatures, *pair, BY_ROW).any()


def test_of_rows_with_one_key_each_is_compared_with_the_first_and_with_its_neighbours():
    """The high bits are one block and so one key of all; the lowest 16 bits differ, and decide about the order."""
    near = of_hashes((0b1 << 20,), *(((number << 32) | 0xFFFF0000,) for number in range(40, 46)), (0b11 << 20,))
    pairs = duplicates._pairs(near, np.arange(8), np.zeros(8, dtype=np.uint64))
    found = set(zip(*(side.tolist() for side in np.divmod(pairs, 8)), strict=True))
    assert {(0, other) for other in range(1, 8)} <= found
    assert {(one, one + 1) for one in range(1, 6)} <= found
    assert len(found) < 8 * 7 / 2
