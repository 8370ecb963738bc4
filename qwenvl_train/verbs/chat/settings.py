"""The settings of the verb chat, and the rules that they keep to."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from qwenvl_train.config.entries import Sources
from qwenvl_train.config.inference import InferenceConfig, one_model
from qwenvl_train.config.rules.data import DATA_RULES
from qwenvl_train.config.rules.machine import is_installed, quantizing_is_installed
from qwenvl_train.config.rules.rule import Lines, among
from qwenvl_train.config.section import Section
from qwenvl_train.config.verb import Verb


def _as_files(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


Files = Annotated[tuple[str, ...], BeforeValidator(_as_files)]
"""One path or address, or a list of them."""


class ChatSection(Section):
    prompt: str | None
    """One question. With null, there is a conversation on the terminal."""
    images: Files
    videos: Files
    """The images and videos of chat.prompt. The marks <image> and <video> in the prompt place them. Without marks, they
    come first."""
    system: str | None
    """The system turn. With null, it is that of the published chat template, if it has one."""
    temperature: NonNegativeFloat
    """With 0, the most likely token is always taken. Above 0, tokens are drawn by chance, after the seed."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """Only the most likely tokens are drawn that together have this probability."""
    top_k: NonNegativeInt
    """The number of the most likely tokens that are drawn. With 0, there is no limit."""
    max_new_tokens: PositiveInt
    """The number of tokens at which an answer is cut."""
    input: Sources | None
    """Data files whose rows are questions. The last answer of a row is not shown to the model, and may be missing."""
    to: str | None
    """The .jsonl file with the answers to chat.input."""
    save: str | None
    """The folder of the images with the boxes and points of answers. With null, it is chat in output_dir."""
    web: bool
    """Whether to chat on a page in the browser."""
    host: str
    """The network address at which the page is served."""
    port: Annotated[int, Field(ge=0, le=65535)]
    """The port of the page. With 0, any free port is taken."""
    compare: str | None
    """A second model that answers beside the first one on the page: base, a run folder, a checkpoint or a model."""


class ChatConfig(InferenceConfig):
    output: Literal["text", "json"]
    """Whether to print an answer as text, or as one line of JSON."""
    chat: ChatSection


_OF_ONE_QUESTION = ("chat.prompt", "chat.images", "chat.videos")


def one_way_to_chat(config: ChatConfig, given: frozenset[str]) -> Lines:
    chat = config.chat
    if chat.web:
        for key in among(given, *_OF_ONE_QUESTION, "chat.input", "chat.to"):
            yield f"{key} has no effect with chat.web=true"
    elif chat.input is not None:
        for key in among(given, *_OF_ONE_QUESTION):
            yield f"{key} has no effect together with chat.input"
        if chat.to is None:
            yield "chat.input needs chat.to, the file for the answers"
        elif not chat.to.endswith(".jsonl"):
            yield f"chat.to={chat.to}: the file for the answers must end in .jsonl"
    else:
        for key in among(given, "chat.to"):
            yield f"{key} has no effect without chat.input"
        if chat.prompt is None:
            for key in among(given, *_OF_ONE_QUESTION[1:]):
                yield f"{key} has no effect without chat.prompt; on the terminal, /image and /video add files"
        elif not chat.prompt.strip():
            yield "chat.prompt is empty"


def output_settings_are_used(config: ChatConfig, given: frozenset[str]) -> Lines:
    chat = config.chat
    if chat.input is not None or chat.web:
        way = "chat.web=true" if chat.web else "chat.input"
        if config.output == "json":
            yield f"output=json has no effect with {way}"
        for key in among(given, "chat.save"):
            yield f"{key} has no effect with {way}"
    if not chat.web:
        for key in among(given, "chat.host", "chat.port", "chat.compare"):
            yield f"{key} has no effect without chat.web=true"


def sampling_settings_are_used(config: ChatConfig, given: frozenset[str]) -> Lines:
    if config.chat.temperature == 0 and not config.chat.web:
        for key in among(given, "chat.top_p", "chat.top_k"):
            yield f"{key} has no effect with chat.temperature=0"


def gradio_is_installed(config: ChatConfig, given: frozenset[str]) -> Lines:
    if config.chat.web and not is_installed("gradio"):
        yield "chat.web=true needs gradio: pip install 'qwenvl-train[web]'"


CHAT = Verb(
    "chat",
    ChatConfig,
    (
        *DATA_RULES,
        quantizing_is_installed,
        gradio_is_installed,
        one_model,
        one_way_to_chat,
        output_settings_are_used,
        sampling_settings_are_used,
    ),
    "qwenvl_train.verbs.chat.command:run",
    reads=(),
    trains=False,
)
