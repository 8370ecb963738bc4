"""The verb chat. It asks a trained model."""

from qwenvl_train.config.compose import Composed
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.reporting.stdout import readers_may_leave
from qwenvl_train.run.finished import with_checkpoint
from qwenvl_train.verbs.chat.settings import ChatConfig


def run(composed: Composed[ChatConfig]) -> None:
    config = with_checkpoint(composed.config)
    family = load_family(config.model)
    with readers_may_leave():
        print(f"{family.name} from {config.model.path}", flush=True)
        if config.chat.web:
            from qwenvl_train.verbs.chat.web import serve

            serve(config, composed.config.model, family)
        elif config.chat.input is not None:
            from qwenvl_train.verbs.chat.answers import answer_all

            answer_all(config, family)
        elif config.chat.prompt is not None:
            from qwenvl_train.verbs.chat.once import answer_once

            answer_once(config, family)
        else:
            from qwenvl_train.verbs.chat.terminal import talk

            talk(config, family)
