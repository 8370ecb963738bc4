"""A client of an OpenAI-compatible server, such as vLLM's, on a host that the settings allow."""

import json
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from ipaddress import ip_address
from threading import Event
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from qwenvl_train.data.ahead import in_order
from qwenvl_train.data.public_http import posted
from qwenvl_train.endpoint.completions import Completion, Lie, completions_in
from qwenvl_train.endpoint.settings import EndpointConfig
from qwenvl_train.errors import UserError

FIRST_PAUSE = 1.0
"""The seconds before the second attempt at a request. Each further pause is twice as long."""
LONGEST_PAUSE = 60.0
MOST_BYTES = 64 * 2**20
"""The size at which an answer is refused."""
_BUSY = (408, 409, 425, 429)
"""The statuses below 500 after which a request may be repeated."""
_OF_REQUEST = (400, 413, 422)
"""The statuses that can be due to the content of one request, such as a conversation that is too long."""
MOST_REFUSED = 3
"""The number of rows, all refused before any request is accepted, after which requests are taken to be wrong in
general."""


class _Response(NamedTuple):
    status: int
    reason: str
    body: bytes
    wait: float | None
    """The seconds that the server asks to wait before the next request."""


@dataclass(frozen=True)
class RefusedRequest:
    """That the server refuses one request, which others need not share."""

    told: str
    """What the server says, as a sentence without its end."""


class _Refusal(UserError):
    def __init__(self, key: str, told: str):
        super().__init__(f"{key}: {told}.")
        self.told = told


class _Failure(Exception):
    """A failure after which a request may be repeated."""

    def __init__(self, told: str, wait: float | None = None):
        super().__init__(told)
        self.told, self.wait = told, wait


class Endpoint:
    def __init__(self, settings: EndpointConfig, key: str):
        """Check the settings. Nothing is sent before the first request.

        Args:
            key: The name of the section of the settings, for error messages.

        Raises:
            UserError: If the settings name no server on an allowed host, or no model.
        """
        self._key, self._settings = key, settings
        if settings.url is None or settings.model is None:
            missing = "url" if settings.url is None else "model"
            raise UserError(f"{key}.{missing} is not set; name the server and its model.")
        self.model: str = settings.model
        address = _checked(settings, settings.url, key)
        path = address.path.rstrip("/")
        path = path if path.endswith("/chat/completions") else f"{path}/chat/completions"
        self.url = address._replace(path=path, fragment="").geturl()
        self._proxied = not _is_loopback(address.hostname or "")
        self._secret = _secret(settings.key_variable, key)
        self._closed = Event()
        self.proven = False
        """Whether the server has accepted a request as they are sent here, so that a refusal is due to its row."""
        self._rows_refused = 0

    def complete(
        self, messages: list[dict], *, n: int = 1, temperature: float, top_p: float, max_tokens: int, seed: int,
        top_logprobs: int | None = None,
    ) -> list[Completion]:  # fmt: skip
        """Return `n` answers to a conversation.

        Args:
            top_logprobs: The number of most likely tokens whose log-probabilities are asked for at each token.

        Raises:
            UserError: If the server is down, refuses the request, or does not answer what it was asked.
        """
        request: dict[str, Any] = {
            "model": self.model, "messages": messages, "n": n, "temperature": temperature, "top_p": top_p,
            "max_tokens": max_tokens, "seed": seed, "stream": False,
        }  # fmt: skip
        if top_logprobs is not None:
            request |= {"logprobs": True, "top_logprobs": top_logprobs}
        body = self._body(json.dumps(request).encode())
        try:
            return completions_in(body, n, self.model, top_logprobs is not None)
        except Lie as lie:
            raise UserError(f"{self._key}: {self._shown(str(lie))} ({self.url}).") from None

    def complete_all(
        self, requests: Iterable[tuple[int, dict]]
    ) -> Generator[list[Completion] | RefusedRequest, None, None]:
        """Yield the answers to each request in the order of the requests, or that the server refuses this one.

        Several are sent at a time, and few requests are read ahead.

        Args:
            requests: The number of a row, and the arguments of `complete`. The requests of a row follow each other.

        Raises:
            UserError: As for `complete`; and if the server has refused the first MOST_REFUSED rows, since requests are
                then wrong in general.
        """
        rows: deque[int] = deque()

        def arguments() -> Iterator[dict]:
            for row, request in requests:
                rows.append(row)
                yield request

        answers = in_order(self._completed, arguments(), self._settings.workers)
        refused: int | None = None
        try:
            for answer in answers:
                row = rows.popleft()
                if not isinstance(answer, _Refusal):
                    self.proven = True
                    yield answer
                    continue
                self._rows_refused += row != refused
                refused = row
                if self._rows_refused >= MOST_REFUSED and not self.proven:
                    raise answer
                yield RefusedRequest(answer.told)
        finally:
            self._closed.set()  # no request waits for its next attempt
            answers.close()
            self._closed.clear()

    def _completed(self, request: dict) -> list[Completion] | _Refusal:
        try:
            return self.complete(**request)
        except _Refusal as refusal:
            return refusal

    def _body(self, request: bytes) -> bytes:
        """Send a request until it is answered, and return the answer."""
        attempts = self._settings.retries + 1
        for attempt in range(attempts):
            try:
                return self._accepted(self._response(request))
            except _Failure as failure:
                if attempt + 1 == attempts or self._closed.is_set():
                    times = "" if attempt == 0 else f" (tried {attempt + 1} times)"
                    raise UserError(f"{self._key}: {self.url} {self._shown(failure.told)}{times}.") from None
                pause = FIRST_PAUSE * 2**attempt if failure.wait is None else failure.wait
                self._closed.wait(min(pause, LONGEST_PAUSE))
        raise AssertionError

    def _response(self, request: bytes) -> _Response:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._secret:
            headers["Authorization"] = f"Bearer {self._secret}"
        limit = self._settings.timeout_seconds
        with _failures(limit, self._key), posted(self.url, request, headers, limit, self._proxied) as answer:
            body = answer.read(MOST_BYTES + 1)
            if answer.length and len(body) <= MOST_BYTES:
                raise _Failure("has ended its answer too early")
            wait = answer.headers.get("Retry-After", "")
            if answer.status in range(300, 400):
                body = answer.headers.get("Location", "").encode()
            return _Response(answer.status, answer.reason, body, float(wait) if wait.isdecimal() else None)

    def _accepted(self, response: _Response) -> bytes:
        """Return the content of an answer. Raise an error if the server did not accept the request."""
        status = response.status
        if len(response.body) > MOST_BYTES:
            raise UserError(f"{self._key}: {self.url} has sent more than {MOST_BYTES // 2**20} MiB in one answer.")
        if status == 200:
            return response.body
        told = f"{status} {response.reason}".strip()
        if status in range(300, 400):
            other = self._shown(response.body.decode("utf-8", "replace"))
            raise UserError(
                f"{self._key}: {self.url} redirects to {other}, which is not followed; set {self._key}.url."
            )
        if message := _message_in(response.body):
            told += f", {message}"
        if status in _BUSY or status >= 500:
            raise _Failure(f"answers {told}", response.wait)
        refusal = f"{self.url} refuses the request: {self._shown(told)}"
        if status in _OF_REQUEST:
            raise _Refusal(self._key, refusal)
        advice = {
            401: f"; put the right API key into the environment variable {self._settings.key_variable}",
            403: f"; put the right API key into the environment variable {self._settings.key_variable}",
            404: f"; check {self._key}.url and {self._key}.model",
        }.get(status, "")
        raise UserError(f"{self._key}: {refusal}{advice}.")

    def _shown(self, text: str) -> str:
        """Return what the server says on one line, shortened, without the key if it repeats it."""
        words = " ".join(text.split()).rstrip(".")
        words = words.replace(self._secret, "…") if self._secret else words
        return words if len(words) <= 300 else words[:299] + "…"


@contextmanager
def _failures(limit: float, key: str) -> Iterator[None]:
    """Turn the errors of a connection into failures in words."""
    try:
        yield
    except TimeoutError:
        raise _Failure(f"has not answered within {limit:g} seconds ({key}.timeout_seconds)") from None
    except HTTPException as error:
        raise _Failure(f"does not answer as a web server does: {error or type(error).__name__}") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise _Failure(f"cannot be reached within {limit:g} seconds ({key}.timeout_seconds)") from None
        words = getattr(reason, "strerror", None) or str(reason)
        raise _Failure(f"cannot be reached: {words}") from None


def _checked(settings: EndpointConfig, url: str, key: str) -> SplitResult:
    """Return the parts of the address of a server. Raise UserError unless it is on an allowed host."""
    try:
        address = urlsplit(url)
        _ = address.port
    except ValueError as error:
        raise UserError(f"{key}.url={url}: {error}.") from None
    host = (address.hostname or "").lower()
    if address.scheme not in ("http", "https") or not host:
        raise UserError(f"{key}.url={url} is no address of a server, such as http://localhost:8000/v1.")
    if "@" in address.netloc or any(not "!" <= letter <= "~" for letter in url):
        raise UserError(
            f"{key}.url may have neither a user name nor a password nor spaces nor letters outside ASCII; put the API "
            f"key into the environment variable {settings.key_variable}."
        )
    if host not in {name.lower().strip("[]") for name in settings.allowed_hosts}:
        raise UserError(
            f"{key}.url={url} is on {host}, but rows are sent to {', '.join(settings.allowed_hosts) or 'no host'} "
            f"only; add the host to {key}.allowed_hosts if it may have them."
        )
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _secret(variable: str, key: str) -> str:
    secret = os.environ.get(variable, "").strip()
    if any(not "!" <= letter <= "~" for letter in secret):
        raise UserError(f"{key}: the environment variable {variable} holds no API key: it has spaces or other letters.")
    return secret


def _message_in(body: bytes) -> str:
    """Return the message of an error, or what the server has sent instead."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return body[:1000].decode("utf-8", "replace")
    for name in ("error", "message", "detail"):
        if isinstance(told, dict) and name in told:
            told = told[name]
    return told if isinstance(told, str) else json.dumps(told)
