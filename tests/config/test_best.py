"""The metric by which checkpoints are compared."""

import pytest
import torch

from qwenvl_train.config.best import about_best, about_unscored, comparable_metrics, is_better
from qwenvl_train.evaluation.score import AnswerScore
from qwenvl_train.training.objectives.dpo import Preferences
from tests.settings import run_config


@pytest.mark.parametrize("loss", [["sigmoid"], ["sigmoid", "bco_pair", "sft"]])
def test_the_evaluations_give_every_metric_that_checkpoints_are_compared_by(loss):
    dpo = run_config(**{"method": "dpo", "dpo.loss": loss})
    objective = Preferences(dpo.dpo, lambda _: None)
    assert set(comparable_metrics(dpo)) <= objective.metrics(torch.ones(objective.sums)).keys()
    assert set(comparable_metrics(run_config())) <= AnswerScore().metrics(torch.ones(AnswerScore.sums)).keys()


def test_a_lower_loss_and_a_higher_score_are_better():
    assert is_better("eval_loss", 0.1, 0.2)
    assert is_better("eval_loss_sft", 0.1, 0.2)
    assert is_better("eval_exact_match", 0.2, 0.1)
    assert not is_better("eval_rewards/margins", 0.1, 0.1)


@pytest.mark.parametrize(
    ("save_steps", "eval_steps", "told"),
    [
        (None, None, False),
        (100, None, True),
        (500, None, False),
        (100, 50, False),
        (100, 30, False),  # both at step 300
        (100, 350, True),
        (200, 150, True),
        (50, 100, False),
    ],
)
def test_a_run_says_at_start_that_only_its_last_checkpoint_gets_a_score(save_steps, eval_steps, told):
    config = run_config(**{"train.save_steps": save_steps, "train.eval_steps": eval_steps, "data.eval": "e.jsonl"})
    line = about_best(config, 400)
    assert (line is not None) == told
    if line:
        assert f"Set train.eval_steps={save_steps} to compare them." in line
    assert about_best(run_config(**{"train.save_steps": 100, "data.eval": None}), 400) is None


def test_a_run_of_a_task_says_at_start_that_nothing_is_scored_without_held_out_samples():
    line = about_unscored(run_config(**{"eval.generate": True, "data.eval": None}))
    assert line is not None
    assert line.startswith("No answers are scored, since there are no held-out samples.")
    assert about_unscored(run_config(**{"eval.generate": True, "data.eval": "e.jsonl"})) is None
    assert about_unscored(run_config(**{"data.eval": None})) is None
