"""A conversation as the messages of OpenAI's chat completions, with its pictures inside."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from PIL import Image as Pillow

from qwenvl_train.data.media.files import name_of, open_file
from qwenvl_train.data.media.picture_files import open_picture, upright_size
from qwenvl_train.data.render.regions import Size, in_words, with_written_tools
from qwenvl_train.data.sample import Content, Coordinates, Image, Listing, Part, Sample, Turn, Video, given_options
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES

_PUBLISHED = replace(FAMILIES["qwen3_vl"], regions="json", coordinates="relative")
"""The notation of boxes and points in messages: thousandths of the picture, and lists of them as JSON. It does not
depend on the pixels that a server resizes a picture to."""
_VIDEO_TYPES = {"mp4": "mp4", "m4v": "mp4", "mov": "quicktime", "webm": "webm", "mkv": "x-matroska", "avi": "x-msvideo"}


class _CallIds:
    """The ids of tool calls, in the order in which they are asked for."""

    def __init__(self) -> None:
        self._calls, self._results = count(1), count(1)

    def of_call(self) -> str:
        return f"call_{next(self._calls)}"

    def of_result(self) -> str:
        """Return the id of the call that the next result belongs to. Results have the order of their calls."""
        return f"call_{next(self._results)}"


def messages_of(sample: Sample) -> list[dict[str, Any]]:
    """Return the messages of a conversation, or of the chosen conversation of a preference pair.

    Pictures and videos are data: URIs of the bytes of their files. Boxes and points are thousandths of their picture.

    Raises:
        UserError: If a message cannot say what the row says, or a file cannot be read.
    """
    conversation = sample.chosen_conversation
    sizes = _sizes(conversation)
    conversation = with_written_tools(conversation, _PUBLISHED, sizes)
    ids = _CallIds()
    return [_message(turn, sizes, ids, conversation.where) for turn in conversation.turns]


def _message(turn: Turn, sizes: list[tuple[Size, Size]], ids: _CallIds, where: str) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    for part in turn.parts:
        written = _written(part, sizes, where)
        if content and content[-1]["type"] == written["type"] == "text":
            written = {"type": "text", "text": content.pop()["text"] + written["text"]}
        content.append(written)
    message: dict[str, Any] = {"role": turn.role, "content": content}
    if all(part["type"] == "text" for part in content):
        message["content"] = content[0]["text"] if content else ""
    if turn.thoughts is not None:
        message["reasoning_content"] = turn.thoughts
    if turn.calls:
        functions = [{"name": call.name, "arguments": call.arguments} for call in turn.calls]
        message["tool_calls"] = [
            {"id": ids.of_call(), "type": "function", "function": function} for function in functions
        ]
    if turn.role == "tool":
        message["tool_call_id"] = ids.of_result()
    return message


def _written(part: Part, sizes: list[tuple[Size, Size]], where: str) -> dict[str, Any]:
    match part:
        case Image():
            address = {"url": _data_uri(part.content, _picture_type(part, where), "image", where)}
            return {"type": "image_url", "image_url": address | ({"detail": part.detail} if part.detail else {})}
        case Video():
            return {"type": "video_url", "video_url": {"url": _video_uri(part, where)}}
    return {"type": "text", "text": in_words(part, _PUBLISHED, sizes, where)}


def _data_uri(content: Content, media_type: str, kind: str, where: str) -> str:
    with open_file(content, name_of(content, kind, where)) as file:
        return f"data:{media_type};base64,{base64.b64encode(file.read()).decode()}"


def _picture_type(image: Image, where: str) -> str:
    with open_picture(image.content, where) as picture:
        media_type = Pillow.MIME.get(picture.format or "")
    if media_type is None:
        raise UserError(
            f"{name_of(image.content, 'image', where)} has a format without a MIME type, so that it cannot be sent; "
            "convert it to PNG."
        )
    return media_type


def _video_uri(video: Video, where: str) -> str:
    if isinstance(video.content, tuple):
        raise UserError(f"{where}: a video is given as frames, which cannot be sent to an endpoint; give a video file.")
    name = name_of(video.content, "video", where)
    if given_options(video.sampling):
        raise UserError(
            f"{name} has frames chosen by the row (fps, nframes, video_start, …), which an endpoint cannot be told; "
            "cut the file instead."
        )
    ending = video.content.rpartition(".")[2].lower() if isinstance(video.content, str) else "mp4"
    if ending not in _VIDEO_TYPES:
        raise UserError(
            f"{name} cannot be sent to an endpoint, which needs one of {', '.join(_VIDEO_TYPES)}; convert it."
        )
    return _data_uri(video.content, f"video/{_VIDEO_TYPES[ending]}", "video", where)


def _sizes(conversation: Sample) -> list[tuple[Size, Size]]:
    """Return the height and width of each picture, upright and twice, if a box or a point needs them."""
    if not has_regions(conversation):
        return []
    return [(size, size) for size in (upright_size(image.content, conversation.where) for image in conversation.images)]


def has_regions(conversation: Sample) -> bool:
    """Return whether the row gives boxes or points apart from its text."""
    in_calls = any(call.regions for turn in conversation.turns for call in turn.calls)
    return in_calls or any(isinstance(part, Coordinates | Listing) for part in _parts(conversation))


def _parts(conversation: Sample) -> Iterator[Part]:
    return (part for turn in conversation.turns for part in turn.parts)
