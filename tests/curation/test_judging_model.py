"""A model's judgements are those that transformers gives for each question alone. Pictures are read once."""

from copy import deepcopy

import numpy as np
import torch
from transformers import AutoProcessor

from qwenvl_train.curation.judging.classes import read_tree
from qwenvl_train.curation.judging.prompts import class_choice, score_choice
from qwenvl_train.data.render.layout import IGNORED
from tests.conftest import conversation, sample_of
from tests.curation.judges import ALL, TinyJudge
from tests.evaluation.test_generation import lively_model
from tests.loading import renderer_of
from tests.model.test_parity import reference

TOLERANCE = 1e-4
"""The worst difference of a score, a probability or a mean log-probability was 4e-6, for Qwen3.5."""


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
            assert judgement.picture_use is None
            continue
        worst = max(worst, abs(judgement.picture_use.with_picture - theirs.mean_log_prob(row)))
        worst = max(worst, abs(judgement.picture_use.without_picture - theirs.mean_log_prob(without_pictures(row))))
        assert abs(judgement.picture_use.gain) > 1e-3
    print("worst difference", model_type, worst)
    assert worst < TOLERANCE
    assert [len(one.scores) for one in found] == [8, 8, 7]
    assert len({round(score, 3) for one in found for score in one.scores.values()}) > 12
