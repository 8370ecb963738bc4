"""Rows with one planted fault each, made of clean rows."""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from qwenvl_train.data.sample import Coordinates, Sample, Text, ToolCall
from tests.curation import clean_rows as clean
from tests.curation.clean_rows import GET_WEATHER, drawn, row


@dataclass(frozen=True)
class Planted:
    kind: str
    rule: str
    """The rule that the row is to fall to."""
    sample: Sample


@dataclass(frozen=True)
class Tools:
    """What a function that plants a fault may use."""

    rng: random.Random
    folder: Path
    picture: Path

    def long(self) -> tuple[str, str]:
        """Return a question and an answer of several sentences, in English, German or Chinese."""
        while True:
            question, answer = self.rng.choice((clean.caption, clean.chinese))(self.rng)
            if len(answer) > (40 if re.search("[一-鿿]", answer) else 150) and "1." not in answer:
                return question, answer

    def made(self, task: Callable[[random.Random], tuple[str, str]], mark: str) -> tuple[str, str]:
        """Return a question and an answer of a task that has `mark` in it."""
        while True:
            question, answer = task(self.rng)
            if mark in answer:
                return question, answer


def loop(t: Tools) -> Sample:
    question, answer = t.long()
    words = answer.split()
    phrase = " ".join(words[-4:]) if len(words) > 8 else answer[-9:-1]
    return row(question, answer + (" " + phrase) * t.rng.randrange(8, 30), t.picture)


def same_line(t: Tools) -> Sample:
    question, answer = t.made(clean.question_answer, "1. Switch")
    return row(question, answer + "\n3. Switch it on again." * t.rng.randrange(3, 9), t.picture)


def same_sentence(t: Tools) -> Sample:
    question, answer = t.long()
    first = re.split(r"(?<=[.。])\s*", answer)[0]
    return row(question, " ".join([answer, *[first] * t.rng.randrange(2, 5)]), t.picture)


def cut_prose(t: Tools) -> Sample:
    """Cuts after a word, in or behind the second sentence. Cuts that leave whole sentences are no faults."""
    while True:
        question, answer = t.long()
        ends = [found.end() for found in re.finditer(r"[.。]", answer)]
        if len(ends) > 1:
            at = t.rng.randrange(ends[0] + 4, len(answer) - 3)
            at = answer.find(" ", at) if " " in answer[at:-2] else at
            cut = answer[:at].rstrip()
            if at > 0 and cut[-1] not in ".。!" and len(cut) > ends[0] + 8:
                return row(question, cut, t.picture)


def cut_code(t: Tools) -> Sample:
    question, answer = t.made(clean.program, "```c")
    return row(question, answer[: answer.rindex("\n    }")], t.picture)


def cut_thoughts(t: Tools) -> Sample:
    return row("Solve the task.", "<think>\nLet me see. The base is 6 cm and the height is", t.picture)


def cut_list(t: Tools) -> Sample:
    question, answer = t.made(clean.question_answer, "1. Switch")
    return row(question, answer + t.rng.choice(("\n4.", "\n4. ")), t.picture)


def trailing(t: Tools) -> Sample:
    end = t.rng.choice((" and", ",", " the", "...", " because", ". (to be continued)", ' and a sign that says "Keep'))
    return row(
        "Describe the picture.", f"The picture shows a {t.rng.choice(clean.COLOURS)} car on a road{end}", t.picture
    )


def broken_json(t: Tools) -> Sample:
    question, answer = t.made(clean.grounding, '"label"')
    body = answer.removeprefix("```json\n").removesuffix("\n```")
    broken = t.rng.choice(
        [
            body[: t.rng.randrange(20, len(body) - 1)],
            body.replace('"label"', "label"),
            body.replace("}", ",}", 1),
            body + "]",
        ]
    )
    fenced = t.rng.random() < 0.5
    return row(question, f"```json\n{broken}\n```" if fenced else broken, t.picture)


def broken_html(t: Tools) -> Sample:
    question, answer = t.made(clean.document, "<html>")
    pieces = ("</table>", "<table", "</h1>", "</div>", "</body></html>")
    piece = t.rng.choice(pieces)
    start = answer.index(piece)
    broken = answer[:start] + (
        answer[answer.index(">", start) + 1 :] if piece == "<table" else answer[start + len(piece) :]
    )
    return row(question, broken, t.picture)


def broken_call(t: Tools) -> Sample:
    whole = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    xml = "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>"
    broken = t.rng.choice(
        [
            whole[:-12], whole.replace("}}", "}"), whole.replace("get_weather", "weather"),
            whole.replace('"name"', '"title"'),
            whole.replace("city", "town"), xml.replace("</parameter>\n", ""), xml.replace("</function>\n", ""),
            xml.replace("=city", "=town"), xml[:-12], whole[12:],
        ]
    )  # fmt: skip
    return row("What is the weather in Rome?", broken, None, tools=(GET_WEATHER,))


def broken_given_call(t: Tools) -> Sample:
    call = t.rng.choice(
        (ToolCall("get_weather", "{}"), ToolCall("get_time", '{"city": "x"}'), ToolCall("get_weather", "{"))
    )
    return row("What is the weather?", "", None, tools=(GET_WEATHER,), calls=(call,))


def broken_table(t: Tools) -> Sample:
    question, answer = t.made(clean.document, "|---|")
    lines = answer.split("\n")
    at = t.rng.randrange(4, len(lines))
    lines[at] = t.rng.choice((lines[at] + " 7 |", lines[at].replace("| 0 ", "", 1)))
    return row(question, "\n".join(lines), t.picture)


def wrong_region(t: Tools) -> Sample:
    box = t.rng.choice(
        ((90, 10, 20, 50), (10, 10, 10, 50), (-9, 4, 20, 20), (20, 20, 190, 60), (5, 5, 20, 140), (200, 60))
    )
    sample = row("Where is it?", "It is at ", t.picture)
    answer = replace(sample.turns[1], parts=(Text("It is at "), Coordinates(clean.region(box))))
    return replace(sample, turns=(sample.turns[0], answer))


def wrong_written(t: Tools) -> Sample:
    box: Any = t.rng.choice(([90, 10, 20, 50], [10, 10, 10, 50], [-9, 4, 20, 20], [20, 20, 1900, 60], [5, 5, 20]))
    if len(box) == 4 and t.rng.random() < 0.5:
        answer = "<|box_start|>({},{}),({},{})<|box_end|>".format(*box)
    else:
        answer = json.dumps([{"bbox_2d": box, "label": "cup"}])
    return row("Locate the cup.", answer, t.picture)


def switched_script(t: Tools) -> Sample:
    while True:
        question, answer = t.long()
        if re.search("[，、]", answer):
            part = "and in the background there are two people walking away from the camera"
            return row(question, re.sub("[，、]", f"，{part}，", answer, count=1), t.picture)
        if ". " in answer:
            part = t.rng.choice(("旁边有一个红色的杯子", "在画面的左边有一只狗"))
            first, rest = answer.split(". ", 1)
            return row(question, t.rng.choice((f"{first} {part}. {rest}", f"{first}. {part}。{rest}")), t.picture)


def switched_language(t: Tools) -> Sample:
    _, english = t.made(clean.caption, "The picture shows a")
    _, german = t.made(clean.caption, "Das Bild zeigt")
    first, second = t.rng.sample((english, german), 2)
    half = second.split(". ")
    return row("Was ist zu sehen?", f"{first} {'. '.join(half[:2])}.", t.picture)


def leaked(t: Tools) -> Sample:
    _, answer = t.long()
    hint = t.rng.choice(("What is shown? Hint: {}", "{} Describe the picture.", "Describe the picture. I think: {}"))
    return row(hint.format(answer), answer, t.picture)


def in_other_language(t: Tools) -> Sample:
    answer = t.rng.choice(
        (
            "A imagem mostra um grande círculo vermelho sobre uma mesa de madeira ao lado de uma xícara.",
            "На картинке изображён большой красный круг на деревянном столе рядом с чашкой.",
            "L'image montre un grand cercle rouge sur une table en bois, à côté d'une tasse.",
        )
    )
    return row("What is in the picture?", answer, t.picture)


def too_long(t: Tools) -> Sample:
    return row("Describe the picture.", " ".join(str(t.rng.random()) for _ in range(1000)), t.picture)


def with_picture(t: Tools, name: str) -> Sample:
    return row("What colour is it?", "It is red.", t.folder / name)


def blank(t: Tools) -> Sample:
    path = t.folder / f"blank-{t.rng.random()}.png"
    Pillow.effect_noise((320, 240), t.rng.choice((0, 3))).convert("RGB").save(path)
    return with_picture(t, path.name)


def unreadable(t: Tools) -> Sample:
    path = t.folder / f"unreadable-{t.rng.random()}.png"
    whole = t.picture.read_bytes()
    match t.rng.randrange(4):
        case 0:
            path.write_bytes(whole[: len(whole) // 2])
        case 1:
            path.write_text("<html>404 not found</html>")
        case 2:
            path.write_bytes(b"")
    return with_picture(t, path.name)


def wrong_size(t: Tools) -> Sample:
    path = t.folder / f"size-{t.rng.random()}.png"
    drawn(path, t.rng, t.rng.choice(((27, 40), (1200, 40), (22, 22))))
    return with_picture(t, path.name)


KINDS: dict[Callable[[Tools], Sample], str] = {
    loop: "repeated_ngrams", same_line: "repeated_lines", same_sentence: "repeated_sentences", cut_prose: "unfinished",
    cut_code: "unfinished", cut_thoughts: "unfinished", cut_list: "unfinished", trailing: "unfinished",
    broken_json: "malformed_json", broken_html: "malformed_html", broken_call: "malformed_tool_calls",
    broken_given_call: "malformed_tool_calls", broken_table: "malformed_tables", wrong_region: "malformed_boxes",
    wrong_written: "malformed_boxes", switched_script: "mixed_languages", switched_language: "mixed_languages",
    leaked: "leaked_answer", in_other_language: "language", too_long: "lengths", blank: "blank_images",
    unreadable: "unreadable_images", wrong_size: "image_size",
}  # fmt: skip
"""The rule that finds each kind of fault."""


def planted_rows(folder: Path, seed: int = 0, each: int = 20) -> Iterator[Planted]:
    """Yield rows of each kind."""
    rng = random.Random(seed)
    pictures = [drawn(folder / f"planted-{index}.png", rng) for index in range(4)]
    for plant, rule in KINDS.items():
        for _ in range(each):
            yield Planted(plant.__name__, rule, plant(Tools(rng, folder, rng.choice(pictures))))
