"""A model's judgements are those of transformers for each question alone, and a row's pictures are read once."""

import io
import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from qwenvl_train.curation.judging.classes import read_tree
from qwenvl_train.curation.judging.engine import Asked
from qwenvl_train.curation.judging.prompted import prompted_row
from qwenvl_train.curation.judging.prompts import PictureGain, class_choice, score_choice
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.render.layout import IGNORED
from qwenvl_train.data.sample import Image as SampleImage
from qwenvl_train.errors import UserError
from tests.conftest import conversation, sample_of
from tests.curation.judges import ALL, TinyJudge, sections_with
from tests.data.test_chat_formats import published
from tests.evaluation.test_generation import lively_model
from tests.loading import renderer_of
from tests.model.test_parity import reference

TOLERANCE = 1e-4
"""The worst difference of a score, a probability or a mean log-probability was 4e-6, for Qwen3.5."""


def view(row: dict) -> RowView:
    return RowView(sample_of(row))


def rows_of(pictures) -> list[dict]:
    red = ("assistant", ["A red one."])
    return [
        conversation(("user", [pictures[1], "What is it?"]), red, id="one"),
        conversation(
            ("system", ["Be brief."]), ("user", [pictures[0], "What?"]), red, ("user", [pictures[3], "And it?"]), red
        ),
        conversation(("user", ["Who are you?"]), ("assistant", ["Nobody but you and me."])),
    ]


class Theirs:
    """Judgements by transformers, one question at a time."""

    def __init__(self, checkpoint, model_type: str):
        self.model, self.model_type = lively_model(checkpoint), model_type
        self.processor = AutoProcessor.from_pretrained(checkpoint)
        self.renderer = renderer_of(self.processor, checkpoint)

    @torch.no_grad()
    def logits(self, row: dict, **template) -> torch.Tensor:
        inputs = reference(self.processor, self.model_type, row, self.renderer, **template)
        return self.model(**inputs).logits[0].double()

    def probabilities(self, row: dict, choice) -> list[float]:
        asked = row | {"messages": [*row["messages"], {"role": "user", "content": choice.text}, {"role": "assistant"}]}
        asked["messages"][-1]["content"] = "A"  # left out of the prompt
        last = self.logits(asked, add_generation_prompt=True)[-1]
        tokens = [self.processor.tokenizer.encode(option)[0] for option in choice.options]
        return last[tokens].softmax(0).tolist()

    def mean_log_prob(self, row: dict) -> float:
        layout = self.renderer.layout(sample_of(row))
        places = np.flatnonzero(layout.labels != IGNORED)
        log_probs = self.logits(row).log_softmax(-1)
        return float(log_probs[places - 1, layout.labels[places]].mean())


def without_pictures(row: dict) -> dict:
    row = deepcopy(row)
    for message in row["messages"]:
        message["content"] = [part for part in message["content"] if part["type"] != "image"]
    return row


def test_judgements_are_those_of_transformers(model_type, checkpoints, pictures, tmp_path):
    rows = rows_of(pictures)
    judge = TinyJudge(checkpoints[model_type], tmp_path, ALL)
    found = judge(*rows)
    theirs = Theirs(checkpoints[model_type], model_type)
    tree = read_tree(None, "tree")
    worst = 0.0
    for row, judgement in zip(rows, found, strict=True):
        assert judgement.problem is None
        for name, score in judgement.scores.items():
            expected = theirs.probabilities(row, score_choice(ALL.scores.each[name].prompt))
            worst = max(worst, abs(score - sum(place * value for place, value in enumerate(expected, start=1))))
        domains = theirs.probabilities(row, class_choice(ALL.classes.prompt, {d: ", ".join(tree[d]) for d in tree}))
        domain = list(tree)[int(np.argmax(domains))]
        names = {name: one.description for name, one in tree[domain].items()}
        classes = theirs.probabilities(row, class_choice(ALL.classes.prompt, names))
        assert (judgement.assigned.domain, judgement.assigned.name) == (domain, list(names)[int(np.argmax(classes))])
        worst = max(worst, abs(judgement.assigned.probability - max(domains) * max(classes)))
        if row is rows[2]:
            assert judgement.image_use is None
            continue
        worst = max(worst, abs(judgement.image_use.with_picture - theirs.mean_log_prob(row)))
        worst = max(worst, abs(judgement.image_use.without_picture - theirs.mean_log_prob(without_pictures(row))))
        assert abs(judgement.image_use.gain) > 1e-3
    print("worst difference", model_type, worst)
    assert worst < TOLERANCE
    assert [len(one.scores) for one in found] == [8, 8, 7]
    assert len({round(score, 3) for one in found for score in one.scores.values()}) > 12


def test_the_prompts_of_a_row_share_its_pictures_and_text(model_type, checkpoints, pictures, tmp_path):
    rows = rows_of(pictures)
    judge = TinyJudge(checkpoints[model_type], tmp_path, ALL)
    judge(*rows)
    grids = [size.grid for row in rows for size in judge.renderer.layout(sample_of(row)).media]
    assert judge.passes.grids == [[list(grid) for grid in grids]]  # one call, with each picture once
    assert len(judge.passes.tokens) == 1
    prompts = judge.judge._prompts(view(rows[0]))
    assert len(prompts) == 8 + 1 + 8 + 1
    layout = judge.renderer.layout(sample_of(rows[0]))
    one = prompted_row(sample_of(rows[0]), prompts, judge.renderer, judge.processor.tokenizer)
    alone = [
        prompted_row(sample_of(rows[0]), [prompt], judge.renderer, judge.processor.tokenizer) for prompt in prompts
    ]
    saved = sum(each.tokens for each in alone[:-1]) - (one.tokens - alone[-1].tokens)
    assert saved >= 17 * layout.length - 17 * 4  # the conversation, once for all questions


def test_small_batches_give_the_same_judgements(checkpoints, pictures, tmp_path):
    checkpoint = checkpoints["qwen3_5"]
    together = TinyJudge(checkpoint, tmp_path / "a", ALL)
    apart = TinyJudge(checkpoint, tmp_path / "b", ALL, batch_tokens=1)
    for one, other in zip(together(*rows_of(pictures)), apart(*rows_of(pictures)), strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
        assert one.assigned.probability == pytest.approx(other.assigned.probability, abs=1e-5)
    assert len(apart.passes.tokens) == 3


@pytest.mark.parametrize("mode", ["auto", "on", "off"])
def test_models_that_think_are_asked_after_empty_thoughts(mode):
    """Also if a picture follows thoughts that the template leaves out, so that the row's conversation is not shared."""
    model = published("qwen3_5_think", mode)
    renderer, tokenizer = model.renderer, model.processor.tokenizer
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (84, 84, 3), dtype=np.uint8))
    picture = io.BytesIO()
    noise.save(picture, "PNG")
    row = conversation(("user", ["What?"]), ("assistant", ["<think>\nHm.\n</think>\n\nI look."]), ("tool", ["Here:"]))
    row["messages"].append({"role": "assistant", "content": "<think>\nWell.\n</think>\n\nBlue."})
    sample = sample_of(row)
    seen = replace(sample.turns[2], parts=(*sample.turns[2].parts, SampleImage(picture.getvalue())))
    sample = replace(sample, turns=(*sample.turns[:2], seen, sample.turns[3]))
    choices = [score_choice("How good?"), score_choice("How clear?")]
    made = prompted_row(sample, [*choices, PictureGain()], renderer, tokenizer)
    ids = np.concatenate([one.layout.input_ids for one in made.rendered])
    assert [one.layout.supervised for one in made.rendered] == [
        0,
        learned := renderer.layout(sample).supervised,
        learned,
    ]
    for end in made.ends:
        written = tokenizer.decode(ids[:end])
        assert written.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    pads = [int((one.layout.input_ids == renderer.image_pad).sum()) for one in made.rendered]
    sizes = [sum(size.tokens for size in one.layout.media) for one in made.rendered]
    assert pads == sizes  # each sample has the pictures of its placeholders
    assert pads[-1] == 0


def test_many_options_have_letters_and_digits(checkpoints, pictures, tmp_path):
    tree = tmp_path / "tree.yaml"
    lines = [f"  class_{number}: things of kind {number}" for number in range(62)]
    tree.write_text("one:\n" + "\n".join(lines) + "\ntwo: {other: the rest}\n")
    judge = TinyJudge(checkpoints["qwen2_vl"], tmp_path, sections_with(classes__use="mark", classes__tree=str(tree)))
    (found,) = judge(rows_of(pictures)[0])
    assert found.assigned.name == "other" or found.assigned.name.startswith("class_")
    row = view(rows_of(pictures)[0])
    choice = judge.judge._class_choice("one")
    assert choice.options[25:28] == ("Z", "a", "b")
    assert choice.options[-1] == "9"
    assert "\n9. class_61: things of kind 61\n" in choice.text
    (answers,) = list(judge.engine.answers([Asked(0, row.sample, (choice,))]))[1:]
    assert sum(map(math.exp, answers[0].figures[0])) == pytest.approx(1)
    assert len(answers[0].figures[0]) == 62
    for name in ("three: {}", "four:\n" + "\n".join(f"  c{number}: x" for number in range(63))):
        tree.write_text(name)
        with pytest.raises(UserError, match="but 1 to 62 are possible"):
            read_tree(str(tree), "tree")


def test_rows_that_cannot_be_judged_have_a_problem_in_words(checkpoints, pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:2000])
    red = ("assistant", ["Red."])
    rows = [
        conversation(("user", [tmp_path / "none.png", "What?"]), red),
        rows_of(pictures)[0],
        conversation(("user", [broken, "What?"]), red),
        conversation(("user", ["long " * 900]), red),
    ]
    judge = TinyJudge(checkpoints["qwen2_5_vl"], tmp_path, ALL, max_length=600)
    found = judge(*rows)
    assert [one.problem is None for one in found] == [False, True, False, False]
    for one, told in zip(found, ("does not exist", None, "cannot be decoded", "data.max_length"), strict=True):
        assert told is None or (told in one.problem and "\n" not in one.problem and one.scores == {})


def test_no_room_for_a_row_is_a_problem_of_this_row(checkpoints, pictures, tmp_path, monkeypatch):
    judge = TinyJudge(checkpoints["qwen2_5_vl"], tmp_path, ALL, max_length=100_000)
    judge(rows_of(pictures)[0])
    model = judge.engine._loaded.model
    forward = model.forward

    def small(**batch):
        if batch["input_ids"].shape[1] > 5000:
            raise torch.OutOfMemoryError
        return forward(**batch)

    monkeypatch.setattr(model, "forward", small)
    rows = [*rows_of(pictures)[1:], conversation(("user", ["long " * 1400]), ("assistant", ["Red."]))]
    found = judge(*rows)
    assert [one.problem is None for one in found] == [True, True, False]
    assert "has no room" in found[2].problem
