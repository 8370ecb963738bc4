"""What judgements mean for rows, and rows whose picture is needless."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.curation.judging import causal
from qwenvl_train.curation.judging.causal import CausalModel, causal_model
from qwenvl_train.curation.judging.classes import ClassOfRow, over_limit, read_tree
from qwenvl_train.curation.judging.judge import Judgement, PictureUse, StoredJudge
from qwenvl_train.curation.judging.opening import open_judge, problems_of_tree
from qwenvl_train.curation.judging.prompts import expected_score, normalized
from qwenvl_train.curation.judging.settings import JudgingSections, problems_of
from qwenvl_train.curation.judging.verdicts import mean_score, of_class, of_picture, of_scores
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.errors import UserError
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.processor import load_processor
from tests.conftest import conversation, sample_of
from tests.curation.judges import ALL, DEFAULTS, TinyJudge, sections_with
from tests.settings import run_config

SHAPES = asset_dir("data") / "shapes"
TREE = """
things:
  cars: {description: cars and trucks, limit: 2, weight: 0.5, min: {answer_clarity: 3, answer_correctness: null}}
  cats: cats of all kinds
  junk: {description: what nobody needs, drop: true}
"""


@pytest.fixture
def tree(tmp_path):
    path = tmp_path / "tree.yaml"
    path.write_text(TREE)
    return read_tree(str(path), "filter.classes.tree")


def test_the_example_has_eight_domains_and_thirty_classes():
    example = read_tree(None, "filter.classes.tree")
    assert len(example) == 8
    assert sum(map(len, example.values())) == 30
    assert all(one.description for classes in example.values() for one in classes.values())


def test_the_defaults_are_off_and_have_the_eight_scores():
    sections = sections_with()
    assert not sections.judged
    assert [name for name, one in sections.scores.each.items() if one.prompt] == [
        "query_complexity", "query_relevance", "answer_correctness", "answer_completeness", "answer_clarity",
        "answer_relevance", "answer_helpfulness", "image_use",
    ]  # fmt: skip
    assert all("1 to 5" in " ".join(one.prompt.split()) for one in sections.scores.each.values() if one.prompt)
    assert set(DEFAULTS) == {"judge", "endpoint", "classes", "scores", "needless_image"}


def test_a_tree_with_settings_of_classes(tree):
    cars = tree["things"]["cars"]
    assert (cars.limit, cars.weight, cars.drop, cars.min["answer_clarity"]) == (2, 0.5, False, 3)
    assert tree["things"]["cats"].description == "cats of all kinds"
    assert list(problems_of_tree(tree, sections_with(scores__use="drop").scores, "filter")) == []
    (first, _) = problems_of_tree(tree, sections_with().scores, "filter")
    assert "things.cars.min has answer_clarity, which filter.scores does not measure" in first


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("things: {cars: {limit: 2}}", "things.cars.description"),
        ("things: {cars: {description: x, limits: 2}}", "things.cars.limits"),
        ("things: {cars: }", "things.cars"),
        ("things: {cars: {description: x, min: {a: 9}}}", "things.cars.min.a"),
        ("[things]", "the file"),
        ("", "the file"),
        ("things: {", "is not YAML"),
        ("{}", "there are 0 domains"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_a_wrong_tree_is_one_sentence(text, told, tmp_path):
    path = tmp_path / "tree.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_tree(str(path), "filter.classes.tree")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_tree(str(tmp_path / "none"), "filter.classes.tree")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"judge__engine": "endpoint"}, ["needless_image needs filter.judge.engine=model"]),
        (
            {"judge__engine": "reward_head"},
            ["needs filter.judge.reward_path", "classes needs", "needless_image needs"],
        ),
        ({"judge__reward_path": "x"}, ["reward_path has no effect with filter.judge.engine=model"]),
        (
            {"judge__engine": "reward_head", "judge__reward_path": "x", "scores__reward__prompt": "How?"},
            ["classes needs", "needless_image needs", "scores has no score without a prompt"],
        ),
        (
            {"scores__own": {"reward": {"prompt": "How?", "min": 1, "images_only": False}}},
            ["scores.own.reward has the name of a setting of filter.scores"],
        ),
        ({}, []),
    ],
)
def test_settings_that_do_not_fit_together(changed, told):
    used = {"classes__use": "drop", "scores__use": "drop", "needless_image__use": "drop"}
    found = list(problems_of(sections_with(**used, **changed), "filter"))
    assert len(found) == len(told)
    assert all(words in line for words, line in zip(told, found, strict=True))
    assert list(problems_of(sections_with(**changed), "filter")) == []


def test_a_score_of_ones_own(checkpoints, tmp_path):
    own = {"politeness": {"prompt": "How polite? 1 to 5.", "min": 2.5, "images_only": False}}
    sections = sections_with(scores__use="drop", scores__own=own)
    (found,) = TinyJudge(checkpoints["qwen2_vl"], tmp_path, sections)(
        conversation(("user", ["Who?"]), ("assistant", ["Me."]))
    )
    assert 1 <= found.scores["politeness"] <= 5
    assert len(found.scores) == 8
    low = of_scores(replace(found, scores={"politeness": 2.0}), sections.scores, {})
    assert low.evidence == "politeness is 2.00, below 2.5"


def test_a_prompt_for_classes_has_a_place_for_the_options():
    with pytest.raises(ValueError, match=r"must contain \{options\} once"):
        sections_with(classes__prompt="Which?")


def test_an_expected_score():
    assert expected_score(normalized([-1.0] * 5)) == pytest.approx(3)
    assert expected_score(normalized([-900.0, -800.0, -math.inf, -700.0, -900.0])) == pytest.approx(4)


def test_verdicts_on_scores(tree):
    settings = sections_with(scores__use="drop", scores__answer_correctness__min=3.5).scores
    judgement = Judgement(None, {"answer_correctness": 3.25, "answer_clarity": 2.0})
    found = of_scores(judgement, settings, tree)
    assert (found.falls, found.value) == (True, 3.25)
    assert found.evidence == "answer_correctness is 3.25, below 3.5"
    of_cars = Judgement(ClassOfRow("things", "cars", 0.9), judgement.scores)  # which has limits of its own
    assert of_scores(of_cars, settings, tree).evidence == "answer_clarity is 2.00, below 3"
    good = Judgement(ClassOfRow("things", "cats", 0.9), {"answer_correctness": 4.0, "answer_clarity": 2.0})
    assert (of_scores(good, settings, tree).falls, of_scores(good, settings, tree).value) == (False, 3.0)
    assert of_scores(Judgement(), settings, tree) is None
    assert (mean_score(good), mean_score(Judgement())) == (3.0, None)


def test_verdicts_on_classes(tree):
    junk, cats = (Judgement(ClassOfRow("things", name, 0.75)) for name in ("junk", "cats"))
    assert of_class(junk, tree).falls
    assert of_class(junk, tree).evidence == "the class things/junk is dropped (probability 75%)"
    assert not of_class(cats, tree).falls
    assert of_class(Judgement(), tree) is None


def test_limits_keep_the_best_rows_or_spread_by_the_seed():
    cars = [("a.jsonl", line) for line in range(40)]
    assert over_limit(cars, np.arange(40) / 10, limit=2, seed=1).tolist() == list(range(38))
    none = np.full(40, np.nan)

    def stay(keys, scores, seed) -> frozenset:
        over = over_limit(keys, scores, 2, seed).tolist()
        return frozenset(key for place, key in enumerate(keys) if place not in over)

    by_seed = {seed: stay(cars, none, seed) for seed in range(8)}
    assert {len(keys) for keys in by_seed.values()} == {2}
    assert len(set(by_seed.values())) > 4
    assert stay(cars[::-1], none, 3) == by_seed[3]
    none[7] = 1.0  # a row with a score comes before rows without one
    assert cars[7] in stay(cars, none, 3)


def test_verdicts_on_pictures():
    settings = sections_with(needless_image__use="drop").needless_image
    same = of_picture(Judgement(image_use=PictureUse(-0.5, -0.52)), settings)
    assert (same.falls, same.value) == (True, pytest.approx(0.02))
    assert same.evidence == "the answer's tokens have a probability of 59% without the image and of 61% with it"
    assert not of_picture(Judgement(image_use=PictureUse(-0.1, -0.9)), settings).falls
    assert not of_picture(Judgement(image_use=PictureUse(-5.0, -5.0)), settings).falls  # the model knows no answer
    assert of_picture(Judgement(), settings) is None


def of_embedded_model(sections: JudgingSections, folder: Path) -> StoredJudge:
    """The judge of `model=tiny judge.engine=model`."""
    config, cpu = run_config(), torch.device("cpu")
    family = load_family(config.model)
    processor = load_processor(config.model, family)
    renderer = Renderer(processor, family, config.model.video, config.data)

    def model() -> CausalModel:
        return causal_model(config, family, processor, renderer, "fp32", cpu)

    return open_judge(sections, read_tree(None, "tree"), folder, config, model, "fp32", cpu, "filter")


def test_needless_images_are_told_from_needed_ones(tmp_path, monkeypatch):
    """The embedded model can say what it sees, and a bin that the question names, but not which bin a part goes to."""
    sections = sections_with(needless_image__use="drop")
    rows = [json.loads(line) for line in (SHAPES / "eval.jsonl").read_text().splitlines()]
    pairs = [json.loads(line) for line in (SHAPES / "eval_pairs.jsonl").read_text().splitlines()]
    needed, needless, unknown = [], [], []
    for row, pair in zip(rows, pairs, strict=True):
        picture, asked = SHAPES / pair["images"][0], row["messages"][0]["content"][1]["text"]
        answer = ("assistant", [row["messages"][1]["content"][0]["text"]])
        needed.append(conversation(("user", [picture, "What is it?"]), ("assistant", [pair["chosen"]])))
        needless.append(conversation(("user", [picture, f"Please say {answer[1][0]}."]), answer))
        unknown.append(conversation(("user", [picture, asked]), answer))
    judge = of_embedded_model(sections, tmp_path)
    falls, gains = {}, {}
    for name, group in (("needed", needed), ("needless", needless), ("unknown", unknown)):
        found = judge.judge([RowView(sample_of(row)) for row in group])
        falls[name] = sum(of_picture(one, sections.needless_image).falls for one in found)
        gains[name] = sorted(one.image_use.gain for one in found)
    # Of the needed pictures, 2 fall, whose answers are what the model says without a picture. 118 remain.
    assert falls == {"needed": pytest.approx(2, abs=2), "needless": 120, "unknown": 0}
    assert gains["needed"][60] > 1
    assert max(map(abs, gains["needless"])) < 0.001
    monkeypatch.setattr(causal, "build_for_inference", pytest.fail)
    again = of_embedded_model(sections, tmp_path).judge([RowView(sample_of(row)) for row in unknown])
    assert again == found


def test_boxes_in_a_row_speak_for_its_picture(checkpoints, pictures, tmp_path):
    row = conversation(("user", [pictures[1], "Where?"]), ("assistant", ["x"]))
    box = {"bbox_2d": [13, 6.1, 65, 30.5], "label": "cat"}
    row["messages"][1]["content"] = [{"type": "objects", "image": 0, "objects": [box]}]
    text = conversation(("user", ["Who?"]), ("assistant", ["Me."]))
    found = TinyJudge(checkpoints["qwen2_vl"], tmp_path, ALL)(row, text)
    assert [one.problem for one in found] == [None, None]
    assert [one.image_use for one in found] == [None, None]
    assert all(one.assigned for one in found)


def test_a_preference_pair_is_judged_by_its_chosen_answer(checkpoints, pictures, tmp_path):
    def sample(answer: str):
        return sample_of(conversation(("user", [pictures[0], "What?"]), ("assistant", [answer])))

    pair = replace(sample("Red."), rejected=sample("Blue.").turns[1:], shared=1)
    judge = TinyJudge(checkpoints["qwen2_vl"], tmp_path, ALL).judge
    one, other = judge.judge([RowView(pair), RowView(sample("Red."))])
    assert one == other
