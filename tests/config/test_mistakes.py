"""Error messages for user mistakes in the configuration."""

import pytest

from qwenvl_train.config.compose import compose
from qwenvl_train.config.rules import machine
from qwenvl_train.errors import UserError
from qwenvl_train.verbs.table import load_verb

LORA = "+recipe=sft_lora"
DPO = "+recipe=dpo_lora"
OWN = "data.train=mine.jsonl"


def problems(*words: str) -> list[str]:
    with pytest.raises(UserError) as raised:
        compose(list(words))
    return str(raised.value).splitlines()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        # Unknown keys
        ([LORA, "model=qwen3_5_omni"], "no such option, and models of the kind omni are not supported. Options: "),
        ([LORA, "model=Qwen2.5-Coder-7B"], "no such option, and models of the kind coder are not supported."),
        ([LORA, "model=Qwen2.5-VL-7B-Instruct"], "no such option; did you mean model=qwen2_5_vl_7b?"),
        ([LORA, "train.lrr=1"], "train.lrr=1: there is no such setting; did you mean train.lr?"),
        ([LORA, "lr=0.1"], "lr=0.1: there is no such setting; did you mean train.lr?"),
        ([LORA, "trainn.lr=0.1"], "trainn.lr=0.1: there is no such setting; did you mean train.lr?"),
        ([LORA, "max-pixels=3"], "max-pixels=3: there is no such setting; did you mean model.max_pixels?"),
        ([LORA, "max_pixels=3"], "max_pixels=3: there is no such setting; did you mean model.max_pixels?"),
        ([LORA, "batchsize=3"], "batchsize=3: there is no such setting; did you mean train.batch_size?"),
        ([LORA, "models=tiny"], "models=tiny: there is no such setting; did you mean model?"),
        ([LORA, "lora={rnk: 3}"], "lora.rnk=3: there is no such setting; did you mean lora.rank?"),
        ([LORA, "hydra.run.dir=x"], "hydra.run.dir=x: there is no such setting"),
        ([LORA, "data.train=[{path:a,mediaroot:m}]"], "did you mean data.train.0.media_root?"),
        # Values
        ([LORA, "train.batch_size=abc"], "train.batch_size=abc: must be a whole number"),
        ([LORA, "train.batch_size=0"], "train.batch_size=0: must be greater than 0"),
        ([LORA, "train.checkpoint_every=0"], "train.checkpoint_every=0: must be greater than 0"),
        ([LORA, "train.keep=0"], "train.keep=0: must be greater than 0 or null"),
        ([LORA, "train.best_metric=loss"], "method=sft give: eval_loss, eval_token_accuracy, eval_exact_match"),
        ([LORA, "train.best_metric=eval_rewards/margins"], "must be a metric that the evaluations of method=sft give"),
        ([DPO, "train.best_metric=eval_entropy"], "eval_rewards/accuracies, eval_rewards/margins"),
        ([LORA, OWN, "train.best_metric=eval_loss"], "train.best_metric has no effect without data.eval"),
        ([LORA, "train.lr=null"], "train.lr=null: must be a number"),
        ([LORA, "train.lr=inf"], "train.lr=inf: must be a finite number"),
        ([LORA, "train.clip=nan"], "train.clip=nan: must be a finite number"),
        ([LORA, "tune_mm_llm=maybe"], "tune_mm_llm=maybe: must be true or false"),
        ([LORA, "train.schedule=cosin"], "must be 'cosine', 'linear' or 'constant'"),
        ([LORA, "lora=8"], "lora=8: is a section; its settings are vision, mlp, llm, rank"),
        ([LORA, "data.train=[]"], "data.train=[]: must be a list of at least one entry"),
        ([LORA, "data.train=null"], "data.train=null: must be one entry or a list"),
        ([LORA, "data.train=[3]"], "data.train.0=3: must be a file name or a mapping with a path"),
        ([LORA, "train.lr=${nope}"], "train.lr: Interpolation key 'nope' not found"),
        ([LORA, "run_name='${'"], "run_name: "),
        # Settings without a default
        ([LORA, "model=custom"], "model.path is not set, and it has no default"),
        ([LORA, "data=files"], "data.train is not set, and it has no default"),
        # Arguments
        ([LORA, "foo"], "foo: write settings as key=value"),
        ([LORA, "seed=="], "seed==: cannot be parsed"),
        ([LORA, "data.train=[a"], "data.train=[a: cannot be parsed"),
        ([LORA, "=3"], "=3: cannot be parsed"),
        ([LORA, "model@x=tiny"], "model@x=tiny: cannot be parsed"),
        ([LORA, "hydra/launcher=x"], "hydra/launcher=x: cannot be parsed"),
        ([LORA, "--multirun"], "--multirun: there is no such flag"),
        ([LORA, "~data.eval"], "~data.eval: a setting cannot be removed; set it to null instead"),
        ([LORA, "data.train=a,b"], "write a list as 'data.train=[first,second]'"),
        ([LORA, "seed=1", "seed=2"], "seed is given twice, as 1 and as 2"),
        ([LORA, "recipe=sft_full"], "recipe is given twice, as sft_lora and as sft_full"),
        # Choices
        (["+recipe=sft_lorra"], "there is no such option; did you mean recipe=sft_lora? Options: dpo_full"),
        ([LORA, "model=Qwen2.5-VL-7B"], "did you mean model=qwen2_5_vl_7b?"),
        ([LORA, "model=Qwen/Qwen2.5-VL-7B-Instruct"], "your own: model.path="),
        ([LORA, "data=mine.jsonl"], "recognition, shape_pairs, shapes, video (your own: data.train=…)"),
        ([LORA, "deepspeed=ds_config.json"], "Options: none, zero1, zero2, zero2_offload, zero3"),
        ([LORA, "optim=null"], "optim=null: there is no such option. Options: adamw"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(words, line):
    assert line in "\n".join(problems(*words))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            [],
            "no component is trained; choose a recipe, such as +recipe=sft_lora (recipes: dpo_full, dpo_lora, mpo_lora",
        ),
        (["+recipe=sft_full", "lora.existing=continue"], "lora.existing=continue trains an adapter further, but no"),
        ([LORA, "tune_mm_llm=false"], "lora.llm=true has no effect while tune_mm_llm=false"),
        ([LORA, "train.epochs=1", "train.max_steps=2"], "train.epochs=1 and train.max_steps=2 are both set"),
        ([LORA, "train.epochs=null"], "train.epochs and train.max_steps are both null"),
        ([LORA, "train.warmup=1.5"], "train.warmup=1.5 is neither a share below 1 nor a whole number of steps"),
        ([LORA, "train.warmup=9", "train.max_steps=9"], "train.warmup=9 must be below train.max_steps=9"),
        ([LORA, "model.min_pixels=9", "model.max_pixels=8"], "model.min_pixels=9 is above model.max_pixels=8"),
        ([LORA, "model.video.min_pixels=9", "model.video.max_pixels=8"], "model.video.min_pixels=9 is above"),
        ([LORA, "model.video.min_frames=9", "model.video.max_frames=8"], "model.video.min_frames=9 is above"),
        ([LORA, "data.max_length=null"], "data.packing=true needs data.max_length"),
        ([LORA, OWN, "data.pack_length=8193"], "data.pack_length=8193 is above data.max_length=8192"),
        (
            [LORA, OWN, "data.pack_length=9", "data.streaming=true", "train.max_steps=5"],
            "data.pack_length=9 may be below the longest sample of a stream",
        ),
        (
            [LORA, OWN, "data.eval=5%", "data.streaming=true", "train.max_steps=5"],
            "data.eval=5% takes samples out of data.train before training",
        ),
        (
            [LORA, OWN, "data.eval=0%"],
            "data.eval=0%: must be files, or a share above 0% and below 100%, such as 5%, or",
        ),
        ([LORA, OWN, "data.eval=100%"], "data.eval=100%: must be files, or a share above 0% and below 100%"),
        ([LORA, OWN, "data.eval=0.05"], "data.eval=0.05: must be files, or a share above 0% and below 100%"),
        ([LORA, OWN, "data.eval=[{format: auto}]"], "data.eval.0.path is not set"),
        ([LORA, OWN, "data.eval=[]"], "data.eval=[]: must be a list of at least one entry or null"),
        ([LORA, "data.pack_length=0"], "data.pack_length=0: must be a whole number above 0, or auto"),
        ([LORA, "train.accumulation=all"], "train.accumulation=all: must be a whole number above 0, or auto"),
        ([LORA, "data.train=[{path: a, weight: 1}, b]"], "only some entries have a weight"),
        ([LORA, "data.train=[{path: a, weight: 1, repeats: 2}, {path: b, weight: 1}]"], "has both weight and repeats"),
        ([LORA, "data.train=[{path: a, weight: 1}]"], "weight has no effect on a single entry"),
        ([LORA, OWN, "data.eval=[{path: b, repeats: 2}]"], "weight and repeats have no effect on b"),
        (["+recipe=sft_full", "model.quantize=nf4"], "4-bit weights cannot be trained in full"),
        (["+recipe=sft_projector", "model.quantize=nf4"], "needs a component with adapters"),
        (["+recipe=sft_qlora", "deepspeed=zero3"], "deepspeed=zero3 cannot shard 4-bit weights"),
        ([LORA, "train.compile=true", "deepspeed=zero3"], "cannot compile the weight transfers of deepspeed=zero3"),
        ([LORA, "train.cache_vision=true", "tune_mm_vision=true"], "set tune_mm_vision=false, or train.cache_vision="),
        (
            [LORA, "train.cache_vision=true", "tune_mm_vision=true", "lora.vision=true"],
            "train.cache_vision=true stores the outputs of a frozen vision tower",
        ),
        (
            [LORA, "train.cache_vision=true", "data.streaming=true", "train.max_steps=9"],
            "with data.streaming=true the media are not known in advance",
        ),
        (["+recipe=sft_qlora", "train.compile=true"], "train.compile=true does not support 4-bit weights"),
        (
            [LORA, "dpo.beta=0.2"],
            "dpo.beta has no effect while method=sft; use a DPO recipe, such as +recipe=dpo_lora",
        ),
        ([DPO, "dpo.discopop_tau=0.1"], "dpo.discopop_tau has no effect without dpo.loss=discopop"),
        ([DPO, "dpo.label_smoothing=0.1"], "dpo.label_smoothing has no effect without dpo.loss=robust or exo_pair"),
        ([DPO, "dpo.label_smoothing=0.5", "dpo.loss=robust"], "dpo.label_smoothing"),
        ([DPO, "dpo.loss=[sigmoid,sigmoid]"], "dpo.loss=sigmoid,sigmoid names a loss twice"),
        ([DPO, "dpo.loss=[sigmoid,sft]", "dpo.weights=[1]"], "dpo.weights gives 1 weights for 2 losses"),
        ([DPO, "dpo.loss=sft"], "dpo.loss=sft alone does not compare answers"),
        ([DPO, "dpo.loss=exo_pair"], "dpo.loss=exo_pair needs dpo.label_smoothing above 0, such as 0.001"),
        ([DPO, "dpo.loss=[sigmoid,sft]", "dpo.wpo=true"], "dpo.wpo=true weights pairs, but dpo.loss=sft"),
        (["+recipe=dpo_full", "dpo.reference=adapter"], "dpo.reference=adapter needs a component with adapters"),
        (
            [DPO, "dpo.reference=cached", "data.streaming=true", "train.max_steps=5"],
            "dpo.reference=cached needs all rows before training",
        ),
        ([LORA, "deepspeed=zero3", "deepspeed.offload_param=nvme"], "offload_param=nvme needs deepspeed.nvme_path"),
        (
            [LORA, "deepspeed=zero3", "deepspeed.gather_on_save=false", "logging.wandb.artifacts=all"],
            "logging.wandb.artifacts=all needs deepspeed.gather_on_save=true",
        ),
        ([LORA, "deepspeed=zero3", "deepspeed.nvme_path=/disk"], "nvme_path has no effect unless"),
        (
            [LORA, "deepspeed=zero2", "deepspeed.offload_optimizer=nvme", "deepspeed.nvme_path=/disk"],
            "deepspeed.offload_optimizer=nvme needs deepspeed=zero3; use cpu, or zero3",
        ),
        (
            [
                LORA,
                "deepspeed=zero3",
                "deepspeed.offload_optimizer=nvme",
                "deepspeed.nvme_path=/disk",
                "deepspeed.gather_on_save=false",
            ],
            "deepspeed.gather_on_save=false takes the weights of a checkpoint from its optimizer states, which do not",
        ),
        ([LORA, "deepspeed=zero2_offload", "optim=adamw_8bit"], "but optim=adamw_8bit needs a GPU; use optim=adamw"),
        ([LORA, "train.liger=true", "train.compile=true"], "train.liger=true and train.compile=true fuse the same"),
        ([LORA, "train.resume=nowhere"], "train.resume=nowhere: must be auto, never or an existing checkpoint folder"),
        ([LORA, "run_name=a/b"], "run_name=a/b: must be the name of one folder"),
        ([LORA, "run_name="], "run_name=: must be the name of one folder"),
    ],
)
def test_a_combination_that_cannot_work_is_named(words, line):
    (problem,) = problems(*words)
    assert line in problem


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("train.lr_vision", [LORA, "train.lr_vision=1e-6"]),
        ("train.lr", ["+recipe=sft_projector", "train.lr_mlp=1e-4", "train.lr=1e-5"]),
        ("lora.rank", ["+recipe=sft_full", "lora.rank=8"]),
        ("lora.rslora", ["+recipe=sft_full", "lora.rslora=true"]),
        ("train.checkpointing=vision", [LORA, "train.checkpointing=vision"]),
        ("train.checkpoint_every=2", [LORA, "train.checkpointing=none", "train.checkpoint_every=2"]),
        ("train.eval_steps", [LORA, OWN, "train.eval_steps=5"]),
        ("train.eval_batch_size", [LORA, OWN, "train.eval_batch_size=5"]),
        ("logging.predictions", [LORA, OWN, "logging.predictions=5"]),
        ("logging.wandb.artifacts", [LORA, OWN, "logging.wandb.artifacts=best"]),
        ("logging.wandb.artifacts", [LORA, "logging=local", "logging.wandb.artifacts=all"]),
        ("logging.wandb.project", [LORA, "logging=local", "logging.wandb.project=x"]),
        ("logging.wandb.tags", [LORA, "logging.wandb={mode: disabled, tags: [a]}"]),
        ("data.bucketing=true", [LORA, "data.bucketing=true"]),
        ("data.too_long=skip", [LORA, "data.packing=false", "data.max_length=null", "data.too_long=skip"]),
        ("data.max_skipped", [LORA, "data.max_skipped=3"]),
        ("data.pack_length=9", [LORA, "data.packing=false", "data.pack_length=9"]),
        ("model.revision", [LORA, "model.path=.", "model.revision=main"]),
        ("deepspeed.overlap_comm", [LORA, "deepspeed.overlap_comm=true"]),
        ("deepspeed.bucket_elements", [LORA, "deepspeed.bucket_elements=1000"]),
        ("deepspeed.offload_optimizer", [LORA, "deepspeed.offload_optimizer=cpu"]),
        ("deepspeed.offload_param", [LORA, "deepspeed=zero2", "deepspeed.offload_param=cpu"]),
        ("deepspeed.whole_elements", [LORA, "deepspeed=zero1", "deepspeed.whole_elements=0"]),
        ("deepspeed.gather_on_save", [LORA, "deepspeed=zero2", "deepspeed.gather_on_save=false"]),
    ],
)
def test_a_given_key_without_effect_is_named(key, words):
    (problem,) = problems(*words)
    assert problem.startswith(f"{key} has no effect")


@pytest.mark.parametrize(
    "words",
    [
        [LORA, OWN, "train.eval_steps=null", "logging.predictions=0"],
        [LORA, "train.lr_vision=null"],
        [LORA, "train.checkpoint_every=2"],
        [LORA, "train.checkpointing=none", "train.checkpoint_every=1"],
        [LORA, "deepspeed=zero2", "deepspeed.bucket_elements=1000"],
        [LORA, "model.path=hub/name", "model.revision=main"],
        [LORA, "train.resume=."],
        [LORA, "data.on_error=skip", "data.max_skipped=3"],
        [LORA, "data.max_length=9", "data.too_long=skip", "data.max_skipped=3"],
        [LORA, "data.train=[{path: a, weight: 1}, {path: b, weight: 2}]"],
        [LORA, "data.train=[{path: a, repeats: 0.5}, b]"],
        [LORA, "train.warmup=8", "train.max_steps=9"],
        ["+recipe=sft_projector", "model.quantize=nf4", "lora.mlp=true"],
    ],
)
def test_what_has_an_effect_or_asks_for_nothing_is_accepted(words):
    compose(words)


def test_all_mistakes_come_at_once():
    lines = problems(LORA, "train.lrr=1", "train.batch_size=abc", "lora.mlp=true", "tune_mm_mlp=false", "seed=-1")
    assert [line.split("=")[0] for line in lines] == ["seed", "train.batch_size", "train.lrr", "lora.mlp"]


def test_unreadable_words_do_not_hide_wrong_values():
    assert len(problems("+recipe=nope", "foo", "train.lrr=1", "train.lr=x")) == 4


def test_a_rule_about_an_invalid_value_is_silent():
    assert problems(LORA, "lora.llm=x", "tune_mm_llm=false") == ["lora.llm=x: must be true or false"]


@pytest.mark.parametrize("words", [["+recipe=sft_qlora"], [LORA, "optim=adamw_8bit"]])
def test_bitsandbytes_is_asked_for(words, monkeypatch):
    monkeypatch.setattr(machine, "is_installed", lambda module: False)
    (problem,) = problems(*words)
    assert problem.endswith("needs bitsandbytes: pip install 'qwenvl-train[qlora]'")


def test_liger_is_asked_for(monkeypatch):
    monkeypatch.setattr(machine, "is_installed", lambda module: False)
    (problem,) = problems(LORA, "train.liger=true")
    assert problem == "train.liger=true needs liger-kernel: pip install 'qwenvl-train[liger]'"


@pytest.mark.parametrize("verb", ["eval", "export", "chat", "sample"])
def test_settings_of_training_are_refused_where_nothing_trains(verb, tmp_path):
    used = ["train.best_metric=eval_loss", "train.precision=bf16", "model.path=x", "logging.wandb.project=mine"]
    unused = [
        "deepspeed=zero2",
        "dpo.beta=0.2",
        "lora.rank=4",
        "train.attention=sdpa",
        "train.lr=0.1",
        "tune_mm_llm=true",
    ]
    needed = {"eval": ["data.eval=x.jsonl"], "sample": ["data.train=x.jsonl", "sample.to=out"]}.get(verb, [])
    with pytest.raises(UserError) as raised:
        compose([*needed, *used, *unused, "logging.predictions=3"], load_verb(verb))
    assert str(raised.value).splitlines() == [
        f"{word.partition('=')[0]} has no effect on {verb}; it is a setting of training"
        for word in (*unused, "logging.predictions=3")
    ]
    with pytest.raises(UserError, match=r"^train.lrr=1: there is no such setting; did you mean train.lr\?$"):
        compose([*needed, *used, "train.lrr=1"], load_verb(verb))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("train: {lr: 0.1}\ndeepspeed: {stage: 2}\n")
    compose([f"+recipe={recipe}", *needed, *used], load_verb(verb))
