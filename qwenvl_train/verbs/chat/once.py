"""One question and its answer, as text or as JSON."""

from collections import deque

from qwenvl_train.families.family import Family
from qwenvl_train.reporting.stdout import print_json
from qwenvl_train.verbs.chat.model import open_model, sampling_of
from qwenvl_train.verbs.chat.opening import locator_of, references
from qwenvl_train.verbs.chat.session import ChatSession
from qwenvl_train.verbs.chat.settings import ChatConfig
from qwenvl_train.verbs.chat.shown import about, as_json, show


def answer_once(config: ChatConfig, family: Family) -> None:
    chat = config.chat
    assert chat.prompt is not None
    session = ChatSession(open_model(config, family), sampling_of(chat), locator_of(config), chat.system)
    media = [*references("image", chat.images), *references("video", chat.videos)]
    pieces = session.ask(chat.prompt, media)
    if config.output == "text":
        show(pieces)
    else:
        deque(pieces, maxlen=0)
    answer = session.last
    assert answer is not None
    if config.output == "json":
        print_json(as_json(answer, config))
        return
    print()
    for line in about(answer, config):
        print(line)
