"""What the devices of a run send to each other in a step, and how long they wait for it.

The bytes are those of ring algorithms: of tensors of size S, each of n devices sends (n-1)/n S in an all-gather or a
reduce-scatter, and twice as much in an all-reduce. tests/distributed/test_traffic.py measures which tensors torch's
DistributedDataParallel and DeepSpeed send, and how often.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedConfig

from qwenvl_train.config.schema import TWO_MODELS, RunConfig
from qwenvl_train.model.components import mode_of
from qwenvl_train.model.load import DTYPES
from qwenvl_train.planning.memory import Sized

Operation = Literal["all-reduce", "reduce-scatter", "all-gather"]
Content = Literal["gradients", "weights"]
Phase = Literal["forward", "backward", "after"]
"""The part of a step in which something is sent: the forward or backward pass of a micro-batch, or after the step."""

_SHARES: dict[Phase, float] = {"forward": 1 / 3, "backward": 2 / 3, "after": 0}
"""The share of a micro-batch's computing that falls into each phase."""


@dataclass(frozen=True)
class Exchange:
    """A collective operation on all tensors of a kind."""

    operation: Operation
    content: Content
    phase: Phase
    times: int
    """Number of times that it is done in a step."""
    size: int
    """Bytes of the tensors, as one device would hold all of them."""

    def sent(self, devices: int) -> float:
        """Return the bytes that each device sends for it in a step."""
        rings = 2 if self.operation == "all-reduce" else 1
        return self.times * self.size * rings * (devices - 1) / devices


class _Phase(NamedTuple):
    times: int
    sent: float
    """Bytes that each device sends in this phase of a step."""
    window: float
    """Seconds that a device computes meanwhile."""


@dataclass(frozen=True)
class Communication:
    """The exchanges of a step, and the time that they take."""

    exchanges: tuple[Exchange, ...]
    devices: int
    speed: float
    """Bytes per second of a ring through all devices."""
    overlaps: bool
    """Whether devices compute while they send."""
    computing: float
    """Seconds in which a device computes one micro-batch."""

    @property
    def sent(self) -> float:
        """Return the bytes that each device sends in a step."""
        return sum(exchange.sent(self.devices) for exchange in self.exchanges)

    @property
    def seconds(self) -> float:
        """Return the seconds of a step in which devices send."""
        return self.sent / self.speed

    @property
    def waiting(self) -> float:
        """Return the seconds of a step in which devices send and do not compute."""
        return sum(max(0.0, phase.sent / self.speed - phase.window) for phase in self._phases())

    @property
    def hidden_from(self) -> float | None:
        """Return the speed from which on devices wait for nothing but what is sent after the step. It is None if there
        is no such speed."""
        phases = [phase for phase in self._phases() if phase.window]
        return max((phase.sent / phase.window for phase in phases), default=None)

    def _phases(self) -> Iterator[_Phase]:
        for phase, share in _SHARES.items():
            found = [exchange for exchange in self.exchanges if exchange.phase == phase]
            if found:
                times, sent = found[0].times, sum(exchange.sent(self.devices) for exchange in found)
                yield _Phase(times, sent, times * share * self.computing if self.overlaps else 0.0)

    def as_dict(self) -> dict[str, Any]:
        return {
            "exchanges": [asdict(exchange) | {"sent": exchange.sent(self.devices)} for exchange in self.exchanges],
            "sent": self.sent,
            "speed": self.speed,
            "seconds": self.seconds,
            "waiting": self.waiting,
            "hidden_from": self.hidden_from,
        }


def exchanges(sizes: Sized, architecture: PreTrainedConfig, config: RunConfig, precision: str) -> Iterator[Exchange]:
    """Yield the exchanges of a step. Those of single numbers, such as the norm of the gradient, are left out."""
    half, trained, passes = DTYPES[precision].itemsize, sum(sizes.trained), config.accumulation
    gradients = trained * (4 if config.deepspeed.communication_dtype == "fp32" else half)
    match config.deepspeed.stage:
        case 0:
            yield Exchange("all-reduce", "gradients", "backward", 1, trained * 4)
        case 1:
            yield Exchange("all-reduce", "gradients", "backward", 1, gradients)
            yield Exchange("all-gather", "weights", "after", 1, trained * half)
        case 2:
            yield Exchange("all-reduce", "gradients", "backward", passes, gradients)
            yield Exchange("all-gather", "weights", "after", 1, trained * half)
        case 3:
            forward, backward, whole = _gathered(sizes, architecture, config)
            yield Exchange("all-gather", "weights", "forward", passes, forward * half)
            yield Exchange("all-gather", "weights", "backward", passes, backward * half)
            yield Exchange("reduce-scatter", "gradients", "backward", passes, gradients)
            yield Exchange("all-gather", "weights", "after", 1, whole * half)


def _gathered(sizes: Sized, architecture: PreTrainedConfig, config: RunConfig) -> tuple[int, int, int]:
    """Return the numbers of elements that ZeRO-3 gathers in a forward pass, in a backward pass, and after a step.

    A forward pass gathers all weights that it uses, frozen or not, and a backward pass those again that gradients flow
    through, also if it computes blocks again. DeepSpeed keeps those at the end of the model that are used again within
    10⁹ elements, which the count ignores. For Qwen3-VL 2B it is therefore 9 % too high, for larger models less.
    """
    most = config.deepspeed.whole_elements
    vision, mlp, llm = (sum(size for size in sizes.used[part] if size > most) for part in ("vision", "mlp", "llm"))
    table = architecture.text_config.vocab_size * architecture.text_config.hidden_size
    # The output layer is gathered for the loss alone, which keeps it for its gradient. It may be the embeddings.
    again = llm - (0 if architecture.tie_word_embeddings else table)
    forward = mlp + llm + (table if architecture.tie_word_embeddings else 0)
    backward = again if mode_of("llm", config) == "full" else again - table
    if config.tuned("vision") or config.tuned("mlp"):
        backward += mlp
    if config.tuned("vision"):
        backward += vision
    twice = forward + (vision if config.tuned("vision") else 0)
    forward += 0 if config.train.cache_vision else vision
    if config.reference in TWO_MODELS:
        forward += twice
    everything = (*sizes.trained, *sizes.frozen)
    return forward, backward, sum(size for size in everything if size <= most)
