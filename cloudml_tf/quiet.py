"""Keeps TensorFlow's start-up chatter off the terminal. Commands call this once, before they need Keras."""

import contextlib
import os
import sys
import tempfile


def quiet_tensorflow() -> None:
    """Import Keras and TensorFlow with stderr held back; what they wrote is shown only if the import fails.

    TensorFlow prints notes on oneDNN and CUDA from C++ before its own log level is in force.
    """
    if "keras" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile("w+b") as held:
        sys.stderr.flush()
        real = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            import keras  # noqa: F401
        except BaseException:
            held.seek(0)
            os.write(real, held.read())
            raise
        finally:
            with contextlib.suppress(OSError):
                os.dup2(real, 2)
            os.close(real)
