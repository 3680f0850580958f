"""Keep secrets out of what is written: run folders, reports, predictions and logs are passed around."""

import os
import re

from cloudml_tf.utils.errors import ConfigError

SECRET_NAME = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?)(_|$)", re.IGNORECASE)
SECRET_ARGUMENT = re.compile(
    r"((?:api[_-]?key|token|secret|passw(?:or)?d|credentials?)[\w.-]*['\"]?\s*[=: ]\s*['\"]?)([^\s'\"]+)", re.IGNORECASE
)
IN_ADDRESS = re.compile(r"(\w://[^/\s:@]*:)[^/\s@]+(@)")  # user:password@host
SHORTEST = 12  # characters; a shorter value would match ordinary words
HIDDEN = "***"


def secrets() -> dict[str, str]:
    """Name -> value of the environment variables that look like secrets."""
    found = {name: value for name, value in os.environ.items() if SECRET_NAME.search(name)}
    return {name: value for name, value in found.items() if len(value) >= SHORTEST and not os.path.exists(value)}


def without_secrets(text: str) -> str:
    """Replace the secrets in a text, such as a command line, by asterisks."""
    for value in sorted(secrets().values(), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = SECRET_ARGUMENT.sub(rf"\g<1>{HIDDEN}", text)
    return IN_ADDRESS.sub(rf"\g<1>{HIDDEN}\g<2>", text)


def check_no_secret(text: str, source: str) -> None:
    """Refuse a configuration that holds a secret: it is written into every run folder. Raises `ConfigError`."""
    for name, value in secrets().items():
        if value in text:
            raise ConfigError(
                f"{source}: holds the value of the environment variable {name}. A configuration is written into run "
                "folders and reports, where no secret belongs. Take it out; wandb reads its key from the environment."
            )
