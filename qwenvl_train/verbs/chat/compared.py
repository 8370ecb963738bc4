"""The second model on the page, which answers beside the first one."""

from qwenvl_train.config.inference import run_folder_of
from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.errors import UserError
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.stored_adapter import stored_adapter
from qwenvl_train.run.finished import with_checkpoint
from qwenvl_train.verbs.chat.model import ChatModel, open_model
from qwenvl_train.verbs.chat.settings import ChatConfig


def second_model(config: ChatConfig, started_from: ModelConfig) -> ModelConfig | None:
    """Return the settings of the model that chat.compare names. The limits on media are those of the first model.

    Return None for the model below the adapter of the first one, which is loaded already. `started_from` is the model
    that the run of the first one started from.
    """
    name = config.chat.compare
    assert name is not None
    path, revision = name, None
    if name == "base":
        if stored_adapter(config.model) is not None:
            return None
        path, revision = started_from.path, started_from.revision
        if config.run is None or path == config.model.path:
            raise UserError(
                f"chat.compare=base: {path} is a whole model that does not name its base; give the path of that model."
            )
    elif (run_folder_of(name) / "config.yaml").is_file():
        path = with_checkpoint(config.model_copy(update={"run": name})).model.path
    changes = {"path": path, "revision": revision, "family": None, "shape": None}
    return config.model.model_copy(update=changes)


def open_second(config: ChatConfig, second: ModelConfig | None, first: ChatModel) -> ChatModel:
    if second is None:
        return first.unadapted
    return open_model(config.model_copy(update={"model": second}), load_family(second))
