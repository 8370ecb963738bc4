"""The jobs that -m makes, and the mistakes that it names before the first of them starts."""

import pytest

from qwenvl_train.cli import main
from qwenvl_train.config.options import Names
from qwenvl_train.config.sweep import jobs_of, quoted
from qwenvl_train.config.verb import TRAIN
from qwenvl_train.errors import UserError

LORA = "+recipe=sft_lora"


def jobs(*words: str) -> list:
    return jobs_of(list(words), TRAIN, Names())


def test_jobs_are_all_combinations_and_are_named_by_what_varies():
    found = jobs("+recipe=sft_lora,sft_projector", "train.lr=choice(1e-4,2e-4)", "seed=7")
    assert [job.name for job in found] == [
        "recipe-sft_lora_lr-0.0001", "recipe-sft_lora_lr-0.0002",
        "recipe-sft_projector_lr-0.0001", "recipe-sft_projector_lr-0.0002",
    ]  # fmt: skip
    last = found[-1].composed
    assert (last.recipe, last.config.train.lr, last.config.seed) == ("sft_projector", 2e-4, 7)
    assert found[-1].arguments == ("recipe=sft_projector", "train.lr=0.0002", "seed=7")


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("train.max_steps=range(10,40,10)", ["max_steps-10", "max_steps-20", "max_steps-30"]),
        ("train.warmup=range(0,0.75,0.25)", ["warmup-0.0", "warmup-0.25", "warmup-0.5"]),
        ("data.train='/a/my rows.jsonl','/b/my rows.jsonl'", ["train-my-rows", "train-my-rows-2"]),
        ("data.train=a.csv,b.tsv", ["train-a", "train-b"]),
        ("data=glob(shape*)", ["data-shape_pairs", "data-shapes"]),
        ("train.eval_steps=null,5", ["eval_steps-null", "eval_steps-5"]),
    ],
)
def test_every_way_to_give_several_values(word, names):
    recipe = "+recipe=sft_lora"
    assert [job.name for job in jobs(recipe, word)] == names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "-m starts one run for each value of a setting, so give one several"),
        (["seed=range(3,3)"], r"seed=range\(3,3\): gives no value"),
        (["seed=range(1,9,0)"], "the step of a range cannot be 0"),
        (["train.lr=range(0.0,1.0,0.0)"], "the step of a range cannot be 0"),
        (["seed=range(1,"], r"seed=range\(1,: is no list of values for -m; write a,b,c"),
        (["seed=range(a,b)"], "is no list of values for -m"),
        (["train.lr=interval(0,1)"], "is no list of values for -m"),
        (["seed=range(0,5000)"], "gives more than 1,000 values"),
        (["seed=range(0,500)", "lora.rank=1,2,3"], "make 1,500 runs, and a sweep has at most 1,000"),
        (["run_name=a,b"], "a sweep has one run_name"),
        (["seed=1,x"], r"^seed=x: must be a whole number \(in seed-x\)$"),
        (["seed=1,2", "train.lrr=1"], r"^train.lrr=1: there is no such setting; did you mean train.lr\?$"),
    ],
)
def test_a_mistake_is_named_before_the_first_run(words, message):
    with pytest.raises(UserError, match=message):
        jobs(LORA, *words)


def test_several_values_without_the_flag_suggest_it(capsys):
    assert main([LORA, "train.lr=1e-4,2e-4"]) == 2
    assert "or -m for one run with each" in capsys.readouterr().err
    assert main(["inspect", "--multirun", "seed=1,2"]) == 2
    assert "use -m with train and plan" in capsys.readouterr().err


def test_a_quoted_value_keeps_its_characters():
    (job, _) = jobs(LORA, "seed=1,2", f"output_dir={quoted('/a b/it is, = (x)')}")
    assert job.composed.config.output_dir == "/a b/it is, = (x)"
