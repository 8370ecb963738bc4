"""The verb train, which fine-tunes a model."""

from qwenvl_train.config.compose import Composed
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.reporting.wording import many
from qwenvl_train.training.distributed.processes import choose_precision, join_processes


def run(composed: Composed) -> None:
    config = composed.config
    state = join_processes(config)
    precision = choose_precision(config)
    family = load_family(config.model)
    if state.is_main_process:
        processes = many(state.num_processes, "process", "processes")
        print(f"{family.name} from {config.model.path}, {precision}, {processes}", flush=True)
    from qwenvl_train.run.training_run import train

    train(composed, family, precision, state)
