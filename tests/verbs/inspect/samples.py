"""A sample as the page and the terminal are told of it: a picture with a box, a clip in two parts, two answers."""

import numpy as np

from qwenvl_train.verbs.inspect.facts import Clip, Inspected, Mark, Overview, Picture, ShownTurn, TokenSpan
from qwenvl_train.verbs.inspect.page import DrawnSample

PICTURE = Picture("/far/away/cat.png", (60, 90), (56, 84), (1, 4, 6), 28, 6)
CLIP = Clip(["/f/1.png", None, "/f/3.png", "/f/4.png"], (30, 30), (28, 28), (2, 2, 2), 28, 2,
            (0.0, 0.5, 1.0, 1.5), 2.0, (0.25, 1.25))  # fmt: skip
MARK = Mark(0, "cat", (9.0, 6.0, 45.0, 30.0), (8, 6, 42, 28), (8.0, 6.0, 42.0, 28.0), True)

# words, whether they are counted, whether they are control tokens, which of the media
_TURNS = [
    ("user", [
        (["<|im_start|>"], False, True, None), (["user", "\n"], False, False, None),
        (["<|vision_start|>"], False, True, None), ([""] * 6, False, True, 0), (["<|vision_end|>"], False, True, None),
        (["Cat", " or\n", " dog?"], False, False, None), ([""], False, True, 1),
        (["<1.2 seconds>"], False, False, None), ([""], False, True, 1),
        (["<|im_end|>"], False, True, None), (["\n"], False, False, None),
    ]),
    ("assistant", [
        (["<|im_start|>"], False, True, None), (["assistant", "\n"], False, False, None),
        (["A", " cat", "", "é."], True, False, None), (["<|im_end|>"], True, True, None), (["\n"], False, False, None),
    ]),
    ("assistant", [(["Or\n", "\x1b[31m<b>not</b>", "."], True, False, None), (["\n"], False, False, None)]),
]  # fmt: skip


def sample(problem: str | None = None, shrink: float = 1.0) -> Inspected:
    turns, trained, place = [], [], 0
    for role, pieces in _TURNS:
        spans = []
        for words, counts, control, medium in pieces:
            spans.append(TokenSpan(place, place + len(words), counts, control, medium, "".join(words)))
            trained += [counts] * len(words)
            place += len(words)
        turns.append(ShownTurn(role, tuple(spans)))
    ids = np.arange(1000, 1000 + place)
    ids[[span.start + n for turn in turns for span in turn.spans if span.medium is not None
         for n in range(span.stop - span.start)]] = 7  # fmt: skip
    positions = np.tile(np.arange(place), (4, 1))
    positions[1:, 4:10] = [[4] * 6, [4, 4, 4, 5, 5, 5], [4, 5, 6, 4, 5, 6]]
    counted = np.array(trained)
    return Inspected(
        id="a<1>",
        source="rows.jsonl",
        line=3,
        problem=problem,
        input_ids=ids,
        labels=np.where(counted, ids, -100),
        position_ids=positions,
        trained=counted,
        turns=tuple(turns),
        media=(PICTURE, CLIP),
        marks=(MARK,),
        shrink=shrink,
    )


def drawn() -> DrawnSample:
    rng = np.random.default_rng(0)
    texts = [word for _, pieces in _TURNS for words, *_ in pieces for word in words]
    picture = rng.integers(0, 256, (56, 84, 3), dtype=np.uint8)
    return DrawnSample(texts, [[picture], list(rng.integers(0, 256, (4, 28, 28, 3), dtype=np.uint8))])


def overview(**changes) -> Overview:
    facts = {
        "rows": 103,
        "lengths": np.arange(1, 101) * 10,
        "supervised": 5050,
        "media": 12,
        "shrunk": 2,
        "max_length": 1000,
        "problems": ["rows.jsonl:7 (id x): the image gone.jpg does not exist.", "second <b>", "third"],
        "too_long": 1,
        "consequence": "a run leaves them out and lists them in skipped.jsonl",
        "ends_run": False,
        "rows_per_epoch": 13,
        "row": "4 packed rows of up to 1000 tokens",
        "fills": np.array([0.97, 0.99, 0.995]),
    }
    return Overview(**{**facts, **changes})
