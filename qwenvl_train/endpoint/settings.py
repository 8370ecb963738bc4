"""The settings of an endpoint. This module does not import torch."""

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from qwenvl_train.config.section import NameList, Section


class EndpointConfig(Section):
    url: str | None
    """The address of the server up to /v1, or up to /chat/completions."""
    model: str | None
    """The name of the model on the server."""
    key_variable: str
    """The name of the environment variable with the API key. If it is not set, no key is sent."""
    allowed_hosts: NameList
    """The hosts that may be asked. Pictures and texts of the rows are sent to no other host."""
    workers: PositiveInt
    """The number of requests at a time."""
    timeout_seconds: PositiveFloat
    """The seconds after which a request is given up."""
    retries: NonNegativeInt
    """How often a request is repeated if the server is down, too slow or too busy."""
