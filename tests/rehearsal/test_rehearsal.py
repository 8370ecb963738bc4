"""The training command on a fake GPU: no operation that a real GPU refuses, no float32 product that should be in 16
bits, and no synchronization except those listed here."""

import json
import os
import subprocess
import sys
from itertools import combinations, product

import pytest

from tests.rehearsal.cases import FAMILIES, KINDS, Case, cases_by_pairs, is_daily

CASES = cases_by_pairs()

WAITS = {
    "training": {
        "transformers/trainer.py:Trainer._inner_training_loop": "the sum of all losses is made, once a run",
        "qwenvl_train/training/trainer.py:VisionTrainer._maybe_log_save_evaluate": "the loss, for each logged row",
        "transformers/trainer.py:Trainer._finalize_training": "the sum of all losses is read, once a run",
        "qwenvl_train/training/objectives/objective.py:Sums.take": "figures, for each row that is logged",
        "qwenvl_train/training/component_norms.py:ComponentNorms.take": "figures, for each row that is logged",
        "qwenvl_train/model/pixels.py:Pixels.__call__": "a picture's mean and width go to the device, once a run",
    },
    "evaluation": {
        "qwenvl_train/model/pixels.py:Pixels.__call__": "a picture's mean and width, where evaluation comes first",
        "qwenvl_train/evaluation/loop.py:Evaluation.metrics": "whether anything was scored, once",
        "qwenvl_train/evaluation/score.py:AnswerScore.metrics": "the score, once",
        "qwenvl_train/training/objectives/dpo.py:Preferences.metrics": "the score, once",
    },
    "vision cache": {
        "qwenvl_train/model/vision_features.py:VisionFeatureExtractor.__call__": "features go to the disk",
        "qwenvl_train/batch.py:Segments.to.<locals>.<lambda>": "pictures come one pass at a time",
        "qwenvl_train/model/pixels.py:Pixels.__call__": "a picture's mean and width, once",
    },
    "reference cache": {
        "qwenvl_train/run/reference_cache.py:_values": "log-probabilities go to the disk",
        "qwenvl_train/batch.py:Segments.to.<locals>.<lambda>": "rows come one pass at a time",
        "qwenvl_train/model/pixels.py:Pixels.__call__": "a picture's mean and width, once",
    },
}
"""The allowed synchronizations in each phase, with their reasons."""
EXPERTS_IN_FP16 = "a list of sizes, by _grouped_mm of float16"
"""torch's kernel for experts supports only bfloat16, so that fp16 synchronizes in each layer."""


@pytest.fixture(scope="module")
def rehearsed(request) -> dict[str, dict]:
    """The result of each case that is tested. All of them run in one process."""
    tested = [item.callspec.params["case"] for item in request.session.items if _is_of_a_case(item)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.rehearsal.rehearse", *(str(CASES.index(case)) for case in tested or CASES[:1])],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if not lines and done.returncode < 0:
        pytest.skip(f"the process died from signal {-done.returncode} when torch's CUDA hooks were replaced")
    assert lines, done.stderr[-5000:]
    if "skipped" in lines[0]:
        pytest.skip(f"no GPU can be pretended: {lines[0]['skipped']}")
    assert done.returncode == 0, done.stderr[-5000:]
    return {line["case"]: line for line in lines if "case" in line}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if is_daily(case) else pytest.mark.nightly) for case in CASES], ids=str
)
def test_a_gpu_would_run_it(case: Case, rehearsed):
    line = rehearsed[str(case)]
    assert line["error"] is None
    assert line["complaints"] == []
    assert [note for note in line["waits"] if not _is_listed(*note)] == []
    assert line["attention_calls"] > 0
    assert set(line["products"]) == {{"bf16": "bfloat16", "fp16": "float16"}[case.precision]}


def test_what_is_broken_is_told(rehearsed):
    told = [line for name, line in rehearsed.items() if name.startswith("broken: ")]
    assert len(told) > 0
    for line in told:
        said = [line["error"] or "", *(note[1] for note in line["complaints"] + line["waits"])]
        assert any(line["expected"] in one for one in said), line


def test_each_pair_of_choices_is_among_the_cases():
    choices = (FAMILIES, KINDS, ("bf16", "fp16"), ("all", "none"), (True, False))
    chosen = [(case.family, case.kind, case.precision, case.checkpointing, case.evaluates) for case in CASES]
    for one, other in combinations(range(len(choices)), 2):
        assert {(case[one], case[other]) for case in chosen} == set(product(choices[one], choices[other]))


def test_each_choice_is_rehearsed_every_day():
    daily = [case for case in CASES if is_daily(case)]
    assert {case.precision for case in daily} == {"bf16", "fp16"}
    assert {case.kind for case in daily} == {*KINDS}
    assert {(case.family, case.kind[:3] == "dpo") for case in daily} == set(product(FAMILIES, (True, False)))


def _is_of_a_case(item: pytest.Item) -> bool:
    return getattr(item, "originalname", None) == test_a_gpu_would_run_it.__name__


def _is_listed(phase: str, what: str, where: str, _: int) -> bool:
    return what == EXPERTS_IN_FP16 or where.split(" from ")[-1] in WAITS[phase]
