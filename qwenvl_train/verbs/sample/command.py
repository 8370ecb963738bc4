"""The verb sample. It draws several answers to each row, and writes those that are right as rows to train on."""

from operator import attrgetter

from qwenvl_train.config.compose import Composed
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.reporting.stdout import print_json, readers_may_leave
from qwenvl_train.run.finished import with_checkpoint
from qwenvl_train.training.distributed.processes import choose_precision, join_processes
from qwenvl_train.verbs.sample.settings import SampleConfig


def model_words(composed: Composed[SampleConfig], config: SampleConfig) -> list[str]:
    """Return the arguments with which a run trains the model that has answered."""
    if config.run is not None:
        return [f"model.path={config.model.path}"]
    own = sorted(key for key in composed.given if key.startswith("model."))
    values = ((key, attrgetter(key)(config)) for key in own)
    named = {"model": composed.choices.get("model", "custom")}
    return [f"{key}={value}" for key, value in (*named.items(), *values) if value not in (None, "custom")]


def run(composed: Composed[SampleConfig]) -> None:
    config = with_checkpoint(composed.config)
    state = join_processes(config)
    precision = choose_precision(config)
    family = load_family(config.model)
    with readers_may_leave():
        from qwenvl_train.evaluation.scoring import check_metrics
        from qwenvl_train.verbs.sample.answers import draw
        from qwenvl_train.verbs.sample.results import results_of
        from qwenvl_train.verbs.sample.text import print_results

        if state.is_main_process and config.output == "text":
            served = config.sample.engine == "endpoint"
            where = f"{config.sample.endpoint.model} at {config.sample.endpoint.url}" if served else None
            print(f"{family.name} from {where or f'{config.model.path}, {precision}'}", flush=True)
        # What does not exist is reported before anything is drawn.
        check_metrics(config.eval, config.data, "data.train")
        drawn = draw(config, family, precision, state)
        if not state.is_main_process:
            return
        results = results_of(drawn)
        if config.output == "json":
            print_json(results.as_dict())
        else:
            print_results(results, model_words(composed, config))
