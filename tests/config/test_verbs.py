"""The rules and keys of the configuration of each verb."""

from typing import get_args

import pytest

from qwenvl_train.config.compose import compose
from qwenvl_train.config.devices import DEVICES, DeviceName
from qwenvl_train.config.rules import machine
from qwenvl_train.errors import UserError
from qwenvl_train.verbs.inspect.settings import INSPECT
from qwenvl_train.verbs.plan.settings import PLAN
from qwenvl_train.verbs.table import load_verb

LORA = "+recipe=sft_lora"
OWN = "data.train=mine.jsonl"


@pytest.mark.parametrize("recipe", ["sft_lora", "sft_qlora", "sft_full"])
def test_the_line_that_trains_also_inspects(recipe, monkeypatch):
    monkeypatch.setattr(machine, "is_installed", lambda module: False)
    words = [f"+recipe={recipe}", OWN, "train.lr=1e-4", "train.resume=nowhere", "deepspeed=zero2", "run_name=x"]
    assert compose(words, INSPECT).config.train.lr == 1e-4


def test_nothing_needs_to_be_tuned_to_be_looked_at():
    assert compose([OWN], INSPECT).config.output == "text"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["output=json"], "output has no effect on train; it is a setting of qwenvl-train chat, .* and sample"),
        (["inspect.samples=3"], "inspect.samples has no effect on train; it is a setting of qwenvl-train inspect"),
        (
            ["inspect={ids: [a], random: true}"],
            "inspect.ids has no effect on train; it is a setting of qwenvl-train inspect",
        ),
    ],
)
def test_what_inspect_reads_is_no_setting_of_training(words, line):
    with pytest.raises(UserError, match=line):
        compose([LORA, *words])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([OWN, "inspect.source=eval"], "inspect.source=eval needs data.eval"),
        (["inspect.ids=[a]", "inspect.samples=3"], "inspect.samples has no effect together with inspect.ids"),
        (["inspect.lines=3", "inspect.random=true"], "inspect.random has no effect together with inspect.lines"),
        (["inspect.samples=null", "inspect.random=true"], "inspect.random has no effect while inspect.samples=null"),
        (["inspect.samples=0", "inspect.random=true"], "inspect.random has no effect while inspect.samples=0"),
        (["inspect.samples=0", "inspect.summary=false"], "inspect.samples=0 leaves nothing to show"),
        (["inspect.samples=0", "output=json"], "inspect.samples=0 leaves nothing to show"),
        (["inspect.file=a.html"], "inspect.file has no effect without output=html"),
        (["output=json", "inspect.summary=true"], "inspect.summary has no effect with output=json"),
        (["output=yaml"], "output=yaml: must be 'text', 'html' or 'json'"),
        (["data.max_length=null"], "data.packing=true needs data.max_length"),
        (["model.min_pixels=9", "model.max_pixels=8"], "model.min_pixels=9 is above model.max_pixels=8"),
        (["train.lrr=1"], "train.lrr=1: there is no such setting"),
    ],
)
def test_a_mistake_in_what_inspect_reads_is_named(words, line):
    with pytest.raises(UserError, match=line):
        compose(words, INSPECT)


@pytest.mark.parametrize(
    ("word", "ids"),
    [
        ("inspect.ids=a", ("a",)),
        ("inspect.ids=[a,b]", ("a", "b")),
        ("inspect.ids=17", ("17",)),
        ("inspect.ids=[17,'018']", ("17", "018")),
        ("inspect.ids=[]", ()),
    ],
)
def test_names_may_read_as_numbers_and_come_alone(word, ids):
    assert compose([word], INSPECT).config.inspect.ids == ids


@pytest.mark.parametrize("recipe", ["sft_lora", "sft_qlora", "sft_full"])
def test_the_line_that_trains_is_also_planned(recipe, monkeypatch):
    """The machine that plans need not have the devices or packages of the run."""
    monkeypatch.setattr(machine, "is_installed", lambda module: False)
    words = [f"+recipe={recipe}", OWN, "train.lr=1e-4", "train.resume=nowhere", "deepspeed=zero2", "run_name=x"]
    assert compose([*words, "train.liger=true", "output=json"], PLAN).config.plan.devices == 1


@pytest.mark.parametrize("verb", ["train", "inspect"])
def test_what_a_plan_reads_is_no_setting_of_the_others(verb):
    with pytest.raises(UserError, match=f"plan.devices has no effect on {verb}; it is a setting of qwenvl-train plan"):
        compose([LORA, "plan.devices=8"], load_verb(verb))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "no component is trained; choose a recipe"),
        ([LORA, "output=html"], "output=html: must be 'text' or 'json'"),
        ([LORA, "inspect.samples=3"], "inspect.samples has no effect on plan"),
        ([LORA, "plan.device=h1000"], "plan.device=h1000: must be 'b200'"),
        ([LORA, "plan.devices=0"], "plan.devices=0: must be"),
        ([LORA, "plan.mfu=1.5"], "plan.mfu=1.5: must be"),
        ([LORA, "plan.fit=perhaps"], "plan.fit=perhaps: must be"),
        ([LORA, "plan.device=l4", "plan.device_gib=40", "plan.tflops=100"], "plan.device has no effect together"),
        ([LORA, "model.quantize=nf4", "deepspeed=zero3"], "cannot shard 4-bit weights"),
    ],
)
def test_a_mistake_in_what_a_plan_reads_is_named(words, line):
    with pytest.raises(UserError, match=line):
        compose(words, PLAN)


def test_every_device_that_can_be_named_is_known():
    assert set(get_args(DeviceName)) == set(DEVICES)


def test_rules_that_are_not_asked_read_no_broken_value():
    """One invalid value does not hide other errors, for every verb."""
    with pytest.raises(UserError) as raised:
        compose(["inspect.samples=many", "inspect.file=a.html", "seed=-1"], INSPECT)
    assert [line.split("=")[0].split(" ")[0] for line in str(raised.value).splitlines()] == [
        "seed",
        "inspect.samples",
        "inspect.file",
    ]
