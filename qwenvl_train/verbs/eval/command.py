"""The verb eval. It generates the answers of a model to held-out samples, and scores them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qwenvl_train.config.compose import Composed, compose
from qwenvl_train.config.inference import run_folder_of
from qwenvl_train.errors import UserError
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.stored_adapter import stored_adapter
from qwenvl_train.reporting.stdout import print_json, readers_may_leave
from qwenvl_train.run.finished import with_checkpoint
from qwenvl_train.training.distributed.processes import choose_precision, join_processes
from qwenvl_train.training.distributed.store import call_on_main
from qwenvl_train.verbs.eval.settings import EVAL, EvalVerbConfig

if TYPE_CHECKING:
    from qwenvl_train.verbs.eval.results import Results


def run(composed: Composed[EvalVerbConfig]) -> None:
    config = with_checkpoint(composed.config)
    models = [config, *_others(config)]
    state = join_processes(config)
    precision = choose_precision(config)
    families = [load_family(model.model) for model in models]
    tracked, results = None, None
    with readers_may_leave():
        if state.is_main_process and config.output != "json":
            for family, model in zip(families, models, strict=True):
                print(f"{family.name} from {model.model.path}, {precision}", flush=True)
        from qwenvl_train.evaluation.scoring import check_metrics
        from qwenvl_train.run.attaching import wandb_run
        from qwenvl_train.verbs.eval.answers import answers_of
        from qwenvl_train.verbs.eval.results import results_of
        from qwenvl_train.verbs.eval.tracking import evaluation_of

        # What does not exist is reported before anything is generated.
        check_metrics(config.eval, config.data)
        tracked = call_on_main(state, lambda: wandb_run("eval.wandb", config.eval.wandb, config))
        answers = [answers_of(model, family, precision, state) for model, family in zip(models, families, strict=True)]
        if not state.is_main_process:
            return
        results = results_of(config, answers)
        _print(results)
    if tracked and results:  # also if the reader of the output has left
        tracked.add_evaluation(evaluation_of(results))


def _print(results: "Results") -> None:
    from qwenvl_train.verbs.eval.text import print_results

    if results.config.output == "json":
        print_json(results.as_dict())
        return
    print_results(results)
    if results.config.output == "html":
        from qwenvl_train.verbs.eval.page import write_page

        print(f"page         {write_page(results)}")


def _others(config: EvalVerbConfig) -> list[EvalVerbConfig]:
    """Return the configurations of the models of eval.compare, which answer the same samples."""
    found = []
    for number, name in enumerate(config.eval.compare, start=1):
        other = _other(config, name)
        if config.eval.to is not None:
            own = str(Path(config.eval.to) / f"{number}-{Path(name).name}")
            other = other.model_copy(update={"eval": config.eval.model_copy(update={"to": own})})
        found.append(other)
    return found


def _other(config: EvalVerbConfig, name: str) -> EvalVerbConfig:
    path = name
    if name == "base":
        adapter = stored_adapter(config.model)
        if adapter is None:
            raise UserError(
                f"eval.compare=base: {config.model.path} is not an adapter, so its base model is not known; name the "
                "path of the model that it was trained from."
            )
        path = adapter.base.path
    elif (run_folder_of(name) / "config.yaml").is_file():
        # Only its model matters here, so that the rules about data do not apply.
        theirs = with_checkpoint(compose([f"run={name}"], replace(EVAL, rules=())).config)
        return config.model_copy(update={"run": name, "model": theirs.model})
    model = config.model.model_copy(update={"path": path, "revision": None, "shape": None, "family": None})
    return config.model_copy(update={"run": None, "model": model})
