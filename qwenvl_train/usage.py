"""The help: what there is on the command line, and what a verb does."""

from shutil import get_terminal_size

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.config.options import Names, recipe_files, recipe_summary
from qwenvl_train.reporting.wrapping import wrapped
from qwenvl_train.verbs.table import FOLDER_VERBS, VERBS

_WIDTH = 110
"""The most columns of the help."""
_HELP = """\
Fine-tune Qwen vision-language models from one YAML recipe.

  qwenvl-train [verb] +recipe=<recipe> [group=<option> …] [key=value …]
  qwenvl-train [verb] -m +recipe=<recipe> key=value,value,… …
  qwenvl-train report <run folder>
  qwenvl-train compare <run folder> <run folder> …
  qwenvl-train watch <run folder> [port=<port>]

Verbs
{verbs}

Recipes: how to train
{recipes}

Groups: what to train, on what, and where
{groups}

Models whose names end in the number of active parameters, such as qwen3_vl_30b_a3b (58 GiB in 16 bits) and \
qwen3_vl_235b_a22b (439 GiB), are mixtures of experts; deepspeed=zero3 shards them.

Examples
  qwenvl-train +recipe=sft_lora
  qwenvl-train +recipe=sft_lora model=qwen2_5_vl_7b data.train=my.jsonl data.eval=held_out.jsonl
  qwenvl-train inspect model=qwen2_5_vl_7b data.train=my.jsonl output=html
  qwenvl-train plan +recipe=sft_full model=qwen2_5_vl_7b data.train=my.jsonl deepspeed=zero2 plan.devices=8
  qwenvl-train chat run=runs/first
  qwenvl-train compare runs/first runs/second
  qwenvl-train +recipe=./mine.yaml train.lr=1e-4
  qwenvl-train +recipe=sft_full model.path=/models/mine data.train='[a.jsonl,b.jsonl]' train.max_steps=500
  qwenvl-train -m +recipe=sft_lora train.lr=1e-4,2e-4 lora.rank=8,16 run_name=rates
  qwenvl-train --config-dir my_configs +recipe=mine model=my_model
  torchrun --nproc_per_node=8 -m qwenvl_train +recipe=sft_full deepspeed=zero2

Flags
  -m, --multirun    one run for each combination of values, and a comparison of them
  --config-dir DIR  recipes (*.yaml, recipe/*.yaml) and options of groups (model/*.yaml, …) of your own, by name

Every key and its default: {configs}/train.yaml.
Keys of another verb: qwenvl-train <verb> --help.

Exit codes: 0 success, 1 an error in qwenvl-train, 2 an error in the input,
130 or 143 interrupted (training saves a checkpoint first)
"""
_HELP_OF_VERB = """\
qwenvl-train {name}: {summary}

Example
  qwenvl-train {name} {example}

It also takes the settings, recipes and groups of training (qwenvl-train --help).
Its own settings and their defaults ({path}):
"""


def help_of(verb: str | None, names: Names) -> str:
    """Return the help of a verb, or that of all. Training is what the latter is about."""
    if verb in FOLDER_VERBS:
        return _help_of_folder_verb(verb)
    return _help_of_all(names) if verb in (None, "train") else _help_of_verb(verb)


def _help_of_all(names: Names) -> str:
    recipes = {name: recipe_summary(path) for name, path in (recipe_files() | names.own.get("recipe", {})).items()}
    options = {f"{group}=": ", ".join(options) for group, options in names.groups.items()}
    text = _HELP.format(
        verbs=_table(
            {name: entry.summary for name, entry in VERBS.items()}
            | {name: entry.summary for name, entry in FOLDER_VERBS.items()}
        ),
        recipes=_table(recipes),
        groups=_table(options),
        configs=asset_dir("configs"),
    )
    return _wrapped(text)


def _help_of_verb(name: str) -> str:
    """Return what a verb does, an example, and its settings as its YAML file explains them."""
    entry = VERBS[name]
    path = asset_dir("configs") / f"{name}.yaml"
    # The first paragraph says what the file is built on.
    _, _, settings = path.read_text(encoding="utf-8").partition("\n\n")
    return _wrapped(_HELP_OF_VERB.format(name=name, path=path, **entry._asdict())) + settings


def _help_of_folder_verb(name: str) -> str:
    entry = FOLDER_VERBS[name]
    settings = "".join(f" [{setting}=…]" for setting in entry.settings)
    return _wrapped(f"qwenvl-train {name}: {entry.summary}\n\nExample\n  {entry.example(name)}{settings}")


def _wrapped(text: str) -> str:
    return "".join(f"{wrapped(line, _columns())}\n" for line in text.splitlines())


def _columns() -> int:
    """Return the width of the help, which is at most that of the terminal."""
    return min(get_terminal_size((_WIDTH, 24)).columns, _WIDTH)


def _table(rows: dict[str, str]) -> str:
    width = max(map(len, rows), default=0)
    return "\n".join(
        wrapped(f"  {name:<{width}}  {text}", _columns(), hanging=" " * (width + 4)) for name, text in rows.items()
    )
