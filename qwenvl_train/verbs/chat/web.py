"""A chat on a page in the browser. The page asks no other host for anything."""

import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.families.family import Family
from qwenvl_train.verbs.chat.compared import open_second, second_model
from qwenvl_train.verbs.chat.model import ChatModel, open_model, sampling_of
from qwenvl_train.verbs.chat.settings import ChatConfig
from qwenvl_train.verbs.chat.visitor import VIDEOS, Visitor

_LOCAL = ("127.0.0.1", "localhost", "::1")
_LARGEST_UPLOAD = "1gb"
"""As much as a medium at an address may have."""
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'"
)
"""What the browser may load: nothing from other hosts, such as the fonts and scripts that gradio's page names."""
_CSS = "footer, button[title='Share'] {display: none !important}"
"""Without gradio's footer and its buttons that post pictures to its makers' hub, which no setting removes."""


def serve(config: ChatConfig, started_from: ModelConfig, family: Family) -> None:
    """Serve the page until Ctrl-C. `started_from` is the model that the run of the first model started from."""
    second = None if config.chat.compare is None else second_model(config, started_from)
    port = _free_port(config)
    models = [open_model(config, family)]
    if config.chat.compare is not None:
        models.append(open_second(config, second, models[0]))
        print(f"beside {models[1].family.name} from {models[1].name}", flush=True)
    page = page_of(models, config)
    launch(page, config.chat.host, port)
    print(f"http://{config.chat.host}:{port} (Ctrl-C ends)", flush=True)
    if config.chat.host not in _LOCAL:
        print("everybody who reaches this machine can use the page", flush=True)
    try:
        Event().wait()
    except KeyboardInterrupt:
        page.close()


def launch(page: gr.Blocks, host: str, port: int) -> None:
    page.launch(
        share=False,
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=False,
        ssr_mode=False,
        footer_links=[],
        max_file_size=_LARGEST_UPLOAD,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=_CSS,
        app_kwargs={"middleware": [Middleware(_OwnHostOnly)]},
    )


def page_of(models: list[ChatModel], config: ChatConfig) -> gr.Blocks:
    visitors: dict[str, Visitor] = {}

    def visitor(request: gr.Request) -> Visitor:
        key = str(request.session_hash)
        if key not in visitors:
            visitors[key] = Visitor(models, sampling_of(config.chat))
        return visitors[key]

    def ask(
        message: dict[str, Any], system: str, temperature: float, top_p: float, top_k: float, tokens: float,
        request: gr.Request,
    ) -> Iterator[list[Any]]:  # fmt: skip
        text, files = message.get("text") or "", message.get("files") or []
        one = visitor(request)
        if not text.strip() and not files:
            yield [message, *one.messages]
            return
        values = {"temperature": temperature, "top_p": top_p, "top_k": int(top_k), "max_new_tokens": int(tokens)}
        sampling = sampling_of(config.chat.model_copy(update=values))
        try:
            for messages in one.ask(text, files, system, sampling):
                yield [None, *messages]
        except UserError as error:
            gr.Warning(message_of(error))
            yield [message, *one.messages]

    def stop(request: gr.Request) -> None:
        visitor(request).stopped = True

    def clear(request: gr.Request) -> list[Any]:
        visitor(request).clear()
        return [gr.skip(), *visitor(request).messages]

    def leave(request: gr.Request) -> None:
        if one := visitors.pop(str(request.session_hash), None):
            one.close()

    chat = config.chat
    with gr.Blocks(title="qwenvl-train chat", analytics_enabled=False) as page:
        with gr.Row():
            shown = [
                gr.Chatbot(
                    label=f"{model.family.name} from {'/'.join(Path(model.name).parts[-3:])}",
                    height="65vh",
                    render_markdown=False,
                    buttons=["copy"],
                    feedback_options=None,
                    placeholder="Ask about images and videos.",
                )
                for model in models
            ]
        question = gr.MultimodalTextbox(
            show_label=False,
            placeholder="Ask, with images and videos. <image> in the text places one; otherwise they come first.",
            file_types=["image", *VIDEOS],
            file_count="multiple",
            max_plain_text_length=100_000,
            autofocus=True,
        )
        with gr.Row():
            stopping, clearing = gr.Button("Stop", size="sm"), gr.Button("New conversation", size="sm")
        with gr.Accordion("Settings", open=False):
            system = gr.Textbox(
                chat.system or "", label="System turn", info="empty: that of the published template", lines=2
            )
            with gr.Row():
                sampling = [
                    gr.Slider(0, 2, chat.temperature, step=0.05, label="Temperature", info="0: the most likely token"),
                    gr.Slider(0.05, 1, chat.top_p, step=0.05, label="Top p"),
                    gr.Slider(0, 200, chat.top_k, step=1, label="Top k", info="0: no limit"),
                    gr.Slider(
                        16,
                        max(4096, chat.max_new_tokens),
                        chat.max_new_tokens,
                        step=16,
                        label="Most tokens",
                    ),
                ]
        question.submit(
            ask, [question, system, *sampling], [question, *shown], concurrency_limit=1, concurrency_id="model",
            show_progress="hidden", api_name="ask",
        )  # fmt: skip
        stopping.click(stop, show_progress="hidden", api_visibility="private")
        # The button in the corner of each conversation would empty only what is shown of it.
        for event in (clearing.click, *(one.clear for one in shown)):
            event(clear, outputs=[question, *shown], show_progress="hidden", api_visibility="private")
        page.unload(leave)
    return page


class _OwnHostOnly:
    """Adds to every answer the policy that keeps the browser from asking other hosts."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def _free_port(config: ChatConfig) -> int:
    """Return chat.port, or any free port if it is 0."""
    host, port = config.chat.host, config.chat.port
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return probe.getsockname()[1]
    except OSError as error:
        raise UserError(
            f"chat.host={host}, chat.port={port}: the page cannot be served there: {error.strerror or error}."
        ) from None
