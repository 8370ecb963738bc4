"""The verb inspect. It shows what the model will be trained on, before the training."""

from qwenvl_train.config.compose import Composed
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.reporting.stdout import readers_may_leave
from qwenvl_train.verbs.inspect.settings import InspectConfig


def run(composed: Composed[InspectConfig]) -> None:
    config = composed.config
    family = load_family(config.model)
    with readers_may_leave():
        if config.output == "text":
            print(f"{family.name} from {config.model.path}", flush=True)
        from qwenvl_train.verbs.inspect.show import show

        show(config, family)
