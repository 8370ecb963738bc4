"""Whether there is a login at a W&B server, found without a prompt and without waiting."""

import os
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PUBLIC_HOST = "api.wandb.ai"
PUBLIC_HOST_NOW = ".forge.coreweave.com"
"""The end of the host name that newer wandb packages use for the public service. A login that was made with an older
package is stored under PUBLIC_HOST."""


def hush() -> None:
    """Silence wandb, and let its questions to the server fail soon if there is no answer. It would ask for hours, also
    at the end of the process. This is called before wandb.init, since its login prints messages on its own."""
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True, x_graphql_retry_max=2, x_graphql_retry_wait_max_seconds=2.0))


def has_login() -> bool:
    return bool(os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or api_key())


def api_key() -> str | None:
    """Return the key from the environment, wandb's settings or the netrc file, without a prompt."""
    return os.environ.get("WANDB_API_KEY") or _settings().api_key or _netrc_key(host())


def _settings() -> Any:
    """Return wandb's settings, also if its own process cannot be reached: that is told when the run starts."""
    import wandb

    try:
        return wandb.setup().settings
    except Exception:
        return wandb.Settings()


def _netrc_key(host: str) -> str | None:
    try:
        entries = netrc(Path(os.environ.get("NETRC", "~/.netrc")).expanduser())
    except (OSError, NetrcParseError):
        return None
    hosts = (host, PUBLIC_HOST) if host.endswith(PUBLIC_HOST_NOW) else (host,)
    found = (entries.authenticators(name) for name in hosts)
    return next((key for _, _, key in filter(None, found) if key), None)


def host() -> str:
    return urlsplit(_settings().base_url).netloc
