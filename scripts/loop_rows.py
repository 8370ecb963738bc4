"""Draws the rows of scripts/loop.py: labelled rows, of which many have a planted fault, a pool of rows with known
answers, and held-out rows."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFilter
from shapes import BIN_QUESTIONS, COLOURS, SHAPES, Picture, draw_picture


@dataclass(frozen=True)
class Sizes:
    clean: int = 360
    """Labelled rows without a fault."""
    per_fault: int = 30
    """Labelled rows with each kind of fault."""
    pool: int = 600
    held_out: int = 600


@dataclass
class Row:
    """A row before it is written. What plants a fault changes it in place."""

    picture: Picture
    number: int
    question: str
    answer: str
    image: bytes

    @property
    def sentence(self) -> str:
        return f"This part is {self.picture.description}, so it goes to {self.picture.bin}."


def draw_row(rng: random.Random, colour: str, shape: str, seen: set[bytes], numbers: list[int]) -> Row:
    """Draw a row without a fault, whose image equals none that is in `seen`. Parts have numbers, as they would where
    parts are sorted, so that two rows are only alike in their texts if they are about the same part."""
    picture = draw_picture(rng, colour, shape)
    while picture.image.tobytes() in seen:
        picture = draw_picture(rng, colour, shape)
    seen.add(picture.image.tobytes())
    number = numbers.pop()
    return Row(picture, number, f"Part {number}. {rng.choice(BIN_QUESTIONS)}", picture.bin, as_png(picture.image))


def as_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def repeated_words(row: Row, rng: random.Random) -> None:
    row.answer = row.sentence[:-1] + " so it goes to" * rng.randrange(8, 14)


def repeated_sentence(row: Row, rng: random.Random) -> None:
    last = f" It goes to {row.picture.bin}."
    row.answer = f"This is {row.picture.description}." + last * rng.randrange(4, 7)


def cut_answer(row: Row, rng: random.Random) -> None:
    row.answer = row.sentence[: row.sentence.index(rng.choice((" bin", " goes")))] + rng.choice((" the", " and", ","))


def broken_json(row: Row, rng: random.Random) -> None:
    whole = json.dumps({"colour": row.picture.colour, "shape": row.picture.shape, "bin": row.picture.bin[4:]})
    row.answer = rng.choice((whole[:-1], whole[:-5], whole.replace('"shape"', "shape"), whole.replace("}", ",}")))


def broken_table(row: Row, rng: random.Random) -> None:
    row.answer = f"| colour | shape | bin |\n|---|---|---|\n| {row.picture.colour} | {row.picture.bin[4:]} |"


def broken_html(row: Row, rng: random.Random) -> None:
    row.answer = f"<table><tr><td>{row.picture.description}</td><td>{row.picture.bin}</td></tr>"


def wrong_box(row: Row, rng: random.Random) -> None:
    box = [rng.randrange(60, 80), 10, rng.randrange(10, 40), 60]
    row.answer = json.dumps([{"bbox_2d": box, "label": row.picture.bin}])


def switched_language(row: Row, rng: random.Random) -> None:
    row.answer = f"This part is {row.picture.description} 请把它放到这个箱子里 and it goes to {row.picture.bin}."


def other_language(row: Row, rng: random.Random) -> None:
    row.answer = f"Dieses Teil gehört in das Fach mit der Nummer {row.picture.bin[4:]}, weil es diese Farbe hat."


def leaked_answer(row: Row, rng: random.Random) -> None:
    row.question, row.answer = f"{row.question} Hint: {row.sentence}", row.sentence


def wrong_bin(row: Row, rng: random.Random) -> None:
    """No rule can find this: only a model, or somebody who looks at the image, can."""
    others = [f"bin {letter}{number}" for letter in "ABCDEF" for number in "12345"]
    row.answer = rng.choice([other for other in others if other != row.picture.bin])


def unreadable_image(row: Row, rng: random.Random) -> None:
    row.image = rng.choice((row.image[: len(row.image) // 2], b"<html>404 not found</html>", b""))


def blank_image(row: Row, rng: random.Random) -> None:
    row.image = as_png(Image.new("RGB", row.picture.image.size, (rng.randrange(256),) * 3))


def tiny_image(row: Row, rng: random.Random) -> None:
    row.image = as_png(row.picture.image.resize((rng.randrange(4, 20), rng.randrange(4, 20))))


FAULTS: dict[str, Callable[[Row, random.Random], None]] = {
    plant.__name__: plant
    for plant in (
        repeated_words, repeated_sentence, cut_answer, broken_json, broken_table, broken_html, wrong_box,
        switched_language, other_language, leaked_answer, wrong_bin, unreadable_image, blank_image,
        tiny_image,
    )
}  # fmt: skip
"""What plants each kind of fault. The kind `near_duplicate` is made of another row."""
NEAR_DUPLICATE = "near_duplicate"


def near_duplicates(original: Row, count: int) -> list[Row]:
    """Return rows about the part of another row, whose images differ a little. They are right, but favour one bin."""
    image = original.picture.image
    copies = [as_png(image.filter(ImageFilter.GaussianBlur(0.3 + 0.01 * index))) for index in range(count)]
    return [Row(original.picture, original.number, original.question, original.answer, copy) for copy in copies]


def draw_rows(folder: Path, sizes: Sizes, seed: int) -> dict[str, str | None]:
    """Write labelled.jsonl, pool.jsonl and held_out.jsonl with their images. Return the kind of fault that each
    labelled row has, by its id."""
    rng = random.Random(seed)
    seen: set[bytes] = set()
    kinds = list(FAULTS)
    parts = sizes.clean + sizes.per_fault * len(kinds) + sizes.pool + sizes.held_out
    numbers = rng.sample(range(1000, 10000), parts)
    bins = [(colour, shape) for colour in COLOURS for shape in SHAPES]

    def drawn(count: int) -> list[Row]:
        found = [draw_row(rng, *bins[index % len(bins)], seen, numbers) for index in range(count)]
        rng.shuffle(found)
        return found

    (folder / "images").mkdir(parents=True, exist_ok=True)
    held_out, pool, clean = drawn(sizes.held_out), drawn(sizes.pool), drawn(sizes.clean)
    labelled: list[tuple[Row, str | None]] = [(row, None) for row in clean]
    faulty = drawn(sizes.per_fault * len(kinds))
    for index, row in enumerate(faulty):
        kind = kinds[index % len(kinds)]
        FAULTS[kind](row, rng)
        labelled.append((row, kind))
    original = rng.choice(clean)
    labelled += [(row, NEAR_DUPLICATE) for row in near_duplicates(original, sizes.per_fault)]
    rng.shuffle(labelled)
    # The first one about the part is the one to keep.
    first = next(index for index, (row, _) in enumerate(labelled) if row.number == original.number)
    labelled = [(row, NEAR_DUPLICATE if row is original else kind) for row, kind in labelled]
    labelled[first] = (labelled[first][0], None)
    write_rows(folder, "held_out", held_out)
    write_rows(folder, "pool", pool)
    names = write_rows(folder, "labelled", [row for row, _ in labelled])
    return dict(zip(names, [kind for _, kind in labelled], strict=True))


def write_rows(folder: Path, name: str, rows: list[Row]) -> list[str]:
    """Write a file of rows with their images. Return their ids."""
    names, lines = [], []
    for index, row in enumerate(rows):
        row_id = f"{name}-{index:04d}"
        (folder / "images" / f"{row_id}.png").write_bytes(row.image)
        turns = [{"from": "human", "value": f"<image>\n{row.question}"}, {"from": "gpt", "value": row.answer}]
        lines.append(json.dumps({"id": row_id, "image": f"images/{row_id}.png", "conversations": turns}))
        names.append(row_id)
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return names
