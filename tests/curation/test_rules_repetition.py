"""The rules on repetition, beside the published definitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenvl_train.curation.rules.repetition import repeated_pieces, repeated_words
from tests.curation.clean_rows import row
from tests.curation.judging import falls, judged

ENGLISH = "The picture shows a red circle on a wooden table beside a cup. "
LOOPS = {
    "english": ENGLISH + "It is very large and red and " * 12,
    "german": "Das Bild zeigt einen Hund. " + "Der Hund ist braun und der Hund ist groß und " * 8,
    "arabic": "تظهر الصورة كلبا. " + "الكلب بني والكلب كبير جدا و" * 12,
    "chinese": "图片中有一只狗。" + "这只狗是棕色的，" * 20,
    "japanese": "画像には犬がいます。" + "犬は茶色です、" * 20,
    "thai": "ภาพนี้มีสุนัข" + "สุนัขสีน้ำตาล" * 20,
    "thoughts": f"<think>\n{'Wait, let me look at the picture once more. ' * 15}\n</think>\n\nA dog.",
}


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("name", ["report", "strict", "light"])
def test_loops_fall(text, name):
    verdict = judged("repeated_ngrams", row("Describe the picture.", text, None), name)
    assert verdict.falls
    assert verdict.value > 0.6
    assert "of the words repeat, such as" in verdict.evidence


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH * 1 + "To its left there is a blue cup, and to its right a green plate with a slice of bread on it.",
        "图片中有一只棕色的狗坐在绿色的草地上，旁边有一个红色的球。远处有几棵大树，天空很蓝，阳光明媚，狗看起来很开心。",
        "| a | b |\n|---|---|\n" + "| 0 | 0 |\n" * 20,
        "<table>" + "<tr><td>0</td><td>0</td><td></td></tr>" * 20 + "</table>",
        "```python\n" + "x = x + 1\n" * 20 + "```",
        "The squares are numbered: " + "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
    ],
)
def test_texts_that_only_resemble_loops_stay(text):
    verdict = judged("repeated_ngrams", row("Describe the picture.", text, None))
    assert verdict is None or (not verdict.falls and verdict.value is not None)


def test_lines_fall():
    lines = "- a red cup on the left\n- a blue plate\n" + "- a spoon beside the plate\n" * 6
    assert falls("repeated_lines", lines)
    assert falls("repeated_lines", "- 红色的杯子在左边\n" * 8)
    assert falls("repeated_lines", "[\n" + '{"bbox_2d": [1, 2, 3, 4], "label": "cup"},\n' * 8 + "]")


def test_lines_that_are_alike_by_their_form_stay():
    assert not falls("repeated_lines", "- a red cup\n- a blue cup\n- a green cup\n- a red plate\n- a blue plate")
    assert not falls("repeated_lines", "[\n" + '  {\n    "label": "a red cup"\n  },\n' * 8 + "]")
    assert not falls("repeated_lines", "```js\n" + "if (a) {\n  return null;\n}\n" * 8 + "```")
    assert not falls("repeated_lines", "<table>\n" + "<tr>\n<td>0</td>\n</tr>\n" * 8 + "</table>")
    assert not falls("repeated_lines", "a red cup on the left\n" * 3)


def test_sentences_fall():
    assert falls("repeated_sentences", "There is a dog. " + "The dog is brown. " * 3)
    assert falls("repeated_sentences", "图中有一只狗。" + "这只狗的颜色是棕色的。" * 3)
    assert falls("repeated_sentences", "هناك كلب. " + "الكلب بني وكبير جدا؟ " * 3)
    assert not falls("repeated_sentences", "There is a dog. The dog is brown. The cat is brown. The hat is brown.")
    assert not falls("repeated_sentences", "No. No. No. It is a red circle on a wooden table beside a cup.")
    assert not falls(
        "repeated_sentences", '[\n{\n"label": "dog",\n"at": [\n1\n]\n},\n{\n"label": "dog",\n"at": [\n1\n]\n}\n]'
    )


# The following two are the functions of datatrove's filter for Gopher's rules, written anew from its description.
def duplicate_ngrams(words: list[str], count: int) -> int:
    """Return the number of characters of n-grams that occurred before, none of which overlap."""
    seen, repeated, index = set(), 0, 0
    while index <= len(words) - count:
        gram = tuple(words[index : index + count])
        if gram in seen:
            repeated += sum(map(len, gram))
            index += count
        else:
            seen.add(gram)
            index += 1
    return repeated


def duplicate_lines(lines: list[str]) -> int:
    """Return the number of characters of lines that occurred before."""
    return sum(len(line) for index, line in enumerate(lines) if line in lines[:index])


WORDS = st.lists(st.sampled_from(["a", "red", "cup", "stands", "图"]), min_size=1, max_size=60)


@given(WORDS, st.integers(2, 6))
def test_share_of_words_covers_that_of_datatrove(words, count):
    share, sequence = repeated_words(words, count)
    total = sum(map(len, words))
    published = duplicate_ngrams(words, count)
    # Ours counts the rest of an n-gram that overlaps with one counted before.
    assert published <= round(share * total) <= total
    assert (share > 0) == (published > 0) == bool(sequence)


@given(st.lists(st.sampled_from(["one", "three", "fifteen", "x"]), min_size=1, max_size=30))
def test_share_of_lines_is_that_of_datatrove(lines):
    share, _ = repeated_pieces(lines, 1)
    assert share * sum(map(len, lines)) == pytest.approx(duplicate_lines(lines))


def test_shares_of_plain_loops():
    assert repeated_words(["a", "red", "cup"] * 4, 3)[0] == pytest.approx(0.75)
    assert repeated_words(list("一二三四五六七八九十"), 3) == (0.0, "")
    assert repeated_pieces(["one", "two", "one", "one"], 4) == (0.0, "")
    assert repeated_pieces(["one", "two", "one", "one"], 3) == (0.5, "one")
