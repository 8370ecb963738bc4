"""How the run asked its model to think, and what a server must be told to ask in the same way."""

import json
from dataclasses import dataclass, field

from qwenvl_train.config.schema import ThinkingMode
from qwenvl_train.data.render.template import as_template
from qwenvl_train.errors import UserError
from qwenvl_train.families.chat_format import ChatFormat
from qwenvl_train.families.family import Family
from qwenvl_train.model.processor import load_processor
from qwenvl_train.verbs.export.card import settings_of
from qwenvl_train.verbs.export.source import Source


@dataclass(frozen=True)
class Asked:
    """How a model was asked to think."""

    told: str
    """In words. Empty if there is nothing to tell."""
    options: dict[str, bool] = field(default_factory=dict)
    """The arguments of the chat template without which it would ask in another way."""

    @property
    def lines(self) -> list[str]:
        """What the model card says."""
        if not self.told:
            return []
        lines = [f"{self.told[0].upper()}{self.told[1:]}."]
        if self.options:
            words = json.dumps(self.options)
            lines.append(
                f"With vLLM, `--default-chat-template-kwargs '{words}'` does this for all requests, and "
                f'`"chat_template_kwargs": {words}` in a request for that one. With transformers, it is an argument of '
                "`apply_chat_template`."
            )
        return lines


def asked_in(source: Source, family: Family) -> Asked:
    """Return how the run of an export asked, if there is a run and its chat template is a published one."""
    mode = settings_of(source.run).get("data", {}).get("thinking")
    if mode is None:
        return Asked("")
    model = source.config.model
    try:
        return asked(as_template(load_processor(model, family), family, model.path).chat, mode)
    except UserError:
        return Asked("")


def asked(chat: ChatFormat, mode: ThinkingMode) -> Asked:
    """Return how a run with this value of data.thinking asked."""
    thinking = chat.thinking
    if thinking is None:
        return Asked("")
    trained = f"trained with data.thinking={mode}"
    if not thinking.optional:
        return Asked(f"{trained}; the chat template always asks for thoughts")
    default = f"{'' if thinking.default else 'not '}to think"
    if mode in ("on", "off"):
        on = mode == "on"
        told = f"{trained}: the model was asked {'' if on else 'not '}to think"
        if on == thinking.default:
            return Asked(f"{told}, as the chat template asks by default")
        options = {"enable_thinking": on}
        return Asked(f"{told}; the chat template asks {default} unless it gets {json.dumps(options)}", options)
    other = json.dumps({"enable_thinking": not thinking.default})
    told = (
        f"{trained}: the model was asked to think where the answer of a row has thoughts, and not to where it has "
        f"none; the chat template asks {default} unless it gets {other} (chat_template_kwargs)"
    )
    if mode == "as_given" and thinking.earlier == "optional":
        options = {"preserve_thinking": True}
        return Asked(f"{told}, and leaves out earlier thoughts unless it gets {json.dumps(options)}", options)
    return Asked(told)
