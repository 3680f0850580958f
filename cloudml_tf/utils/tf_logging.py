"""Keeps TensorFlow's start-up chatter off the terminal. Commands call this once, before they need Keras."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def held_back_stderr() -> Iterator[None]:
    """Hold back what is written to stderr, by C++ too; it is shown only if the block fails."""
    with tempfile.TemporaryFile("w+b") as held:
        sys.stderr.flush()
        real = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(real, held.read())
            raise
        finally:
            with contextlib.suppress(OSError):
                os.dup2(real, 2)
            os.close(real)


def quiet_tensorflow() -> None:
    """Import Keras and TensorFlow with stderr held back; what they wrote is shown only if the import fails.

    TensorFlow prints notes on oneDNN and CUDA from C++ before its own log level is in force. On JAX and PyTorch too:
    Keras seeds every framework that is installed.
    """
    if "keras" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with held_back_stderr():
        import keras  # noqa: F401

        with contextlib.suppress(ImportError):
            import tensorflow  # noqa: F401
