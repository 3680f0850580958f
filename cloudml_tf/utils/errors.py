"""The errors that a user can fix, and the exit codes of every command."""

import contextlib
from collections.abc import Iterator

EXIT_OK = 0
EXIT_FAULT = 1  # Python's own, of an exception that nobody caught
EXIT_BAD_INPUT = 2
EXIT_COLLAPSED = 3
EXIT_NOT_FINITE = 4
EXIT_NOT_CONVERGED = 5
EXIT_NO_PARITY = 6
EXIT_FLIGHTS_FAILED = 7
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

EXIT_CODES = {
    EXIT_OK: "done",
    EXIT_FAULT: "an error inside cloudml_tf (please report it)",
    EXIT_BAD_INPUT: "bad input: the message names the file, the field and the remedy",
    EXIT_COLLAPSED: "training stopped because the predictions collapsed to a constant",
    EXIT_NOT_FINITE: "the loss or a prediction was not finite",
    EXIT_NOT_CONVERGED: "pretraining did not converge",
    EXIT_NO_PARITY: "an exported file predicts other values than the Keras model; nothing was exported",
    EXIT_FLIGHTS_FAILED: "predict --archive: some flights failed, and archive.json names them; the others are done",
    EXIT_INTERRUPTED: "interrupted by Ctrl-C; the message says whether and how it is continued",
    EXIT_TERMINATED: "ended by SIGTERM; continued in the same way",
}


class CloudMLError(Exception):
    """A mistake in the input that the user can fix. The command line prints its text alone, with no traceback.

    The text says which rule was broken, where, what was received, and how to fix it.
    """

    exit_code = EXIT_BAD_INPUT


class ConfigError(CloudMLError):
    """A configuration file or override that cannot be used."""


class DataError(CloudMLError):
    """A flight file, or a set of flights, that cannot be used."""


class FlightError(DataError):
    """A fault of one flight; `data.bad_flights` says whether the run continues without it."""

    def __init__(self, flight: str, text: str) -> None:
        super().__init__(text)
        self.flight = flight

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.flight, str(self))


@contextlib.contextmanager
def of_flight(name: str) -> Iterator[None]:
    """Turn data and file errors of the block, which reads one flight, into a `FlightError`."""
    try:
        yield
    except FlightError:
        raise
    except DataError as error:
        raise FlightError(name, str(error)) from None
    except OSError as error:  # a file that has vanished since it was found
        raise FlightError(name, f"{error.filename}: cannot be read ({error.strerror}).") from None


class RunError(CloudMLError):
    """A run folder or an exported model that cannot be read or written."""


class NotFiniteError(CloudMLError):
    """The training loss became NaN or infinite."""

    exit_code = EXIT_NOT_FINITE


class PretrainingError(CloudMLError):
    """A pretraining that did not converge, or an encoder that does not fit."""

    exit_code = EXIT_NOT_CONVERGED


class ParityError(CloudMLError):
    """An exported file whose predictions differ from those of the Keras model."""

    exit_code = EXIT_NO_PARITY
