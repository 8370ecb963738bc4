"""Answers that are drawn by chance depend on their row and their seed alone."""

from dataclasses import replace

import pytest

from qwenvl_train.evaluation.drawing import Drawing
from qwenvl_train.evaluation.generation import request_row
from tests.conftest import conversation, sample_of
from tests.evaluation.test_generation import Generator


def drawing(generate: Generator, **settings) -> Generator:
    """The same generator with several answers to each request."""
    defaults = {"tries": 3, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": 0}
    generate.answers = replace(generate.answers, drawing=Drawing(**(defaults | settings)))
    return generate


def asked(pictures) -> list[dict]:
    red = ("assistant", ["Red."])
    rows = [
        conversation(("user", [pictures[1], "and", pictures[3], "What?"]), red),
        conversation(("user", ["Say something."]), red, ("user", [pictures[2], "And this?"]), red),
        conversation(("user", ["A long question. " * 12]), red),
    ]
    return [{**row, "id": f"row-{number}"} for number, row in enumerate(rows)]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_5"])
def test_answers_are_the_same_alone_and_in_a_batch(family, checkpoints, pictures):
    generate = drawing(Generator(checkpoints[family], family, 12))
    rows = asked(pictures)
    together = generate(*rows)
    assert [(one.request.sample.id, one.request.turn, one.drawn.number) for one in together] == [
        (f"row-{row}", turn, number) for row, turns in ((0, 1), (1, 2), (2, 1)) for turn in range(1, turns + 1)
        for number in (1, 2, 3)
    ]  # fmt: skip
    assert [one.text for row in rows for one in generate(row)] == [one.text for one in together]
    assert len({one.text for one in together}) == len({one.drawn.seed for one in together}) == 12
    # More tries leave the first ones as they are, and another seed changes all.
    more = drawing(generate, tries=5)(rows[0])
    assert [one.text for one in more[:3]] == [one.text for one in together[:3]]
    assert not {one.text for one in drawing(generate, seed=1)(*rows)} & {one.text for one in together}


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl", "qwen3_5_moe"])
def test_the_cache_of_a_prompt_is_repeated(family, checkpoints, pictures):
    """Next to no temperature gives the most likely answer at each try, from one pass over the prompts."""
    generate = Generator(checkpoints[family], family, 12)
    rows = asked(pictures)
    greedy = [one.text for one in generate(*rows)]
    sizes: list[tuple[int, ...]] = []
    generate.model.register_forward_pre_hook(
        lambda _, __, given: sizes.append(given["input_ids"].shape), with_kwargs=True
    )
    drawn = drawing(generate, temperature=1e-5)(*rows)
    assert [one.text for one in drawn] == [text for text in greedy for _ in range(3)]
    length = request_row(list(map(sample_of, rows)), generate.renderer, generate.processor.tokenizer).batch["input_ids"]
    assert sizes[:2] == [length.shape, (12, 1)]
