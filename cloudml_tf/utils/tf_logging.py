"""Keep TensorFlow's start-up messages off the terminal. Commands call this once, before they need Keras."""

import contextlib
import glob
import os
import sys
import tempfile
from collections.abc import Iterator

GPU_FILES = ("/dev/nvidia*", "/dev/nvhost*", "/dev/dxg")  # of a driver: on a server or PC, on a Jetson, in WSL


@contextlib.contextmanager
def held_back_stderr() -> Iterator[None]:
    """Hold back what is written to stderr, also by C++; show it only if the block fails."""
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


def expects_gpu() -> bool:
    """Whether this machine has the driver of a GPU, and the user has not hidden it from CUDA."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(glob.glob(pattern) for pattern in GPU_FILES)


def set_log_level() -> None:
    """The level of TensorFlow's C++ log, unless the user has chosen one: errors, where a GPU may fail; else none."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if expects_gpu() else "3")


def quiet_tensorflow() -> None:
    """Import Keras and TensorFlow with stderr held back; what they wrote is shown only if the import fails.

    TensorFlow prints notes on oneDNN and CUDA from C++ before its own log level applies. On JAX and PyTorch too: Keras
    seeds every framework that is installed.
    """
    if "keras" in sys.modules:
        return
    set_log_level()
    with held_back_stderr():
        import keras  # noqa: F401

        with contextlib.suppress(ImportError):
            import tensorflow as tf

            if not expects_gpu():
                # The first look for devices says "failed call to cuInit" where there is no GPU to call.
                tf.config.list_physical_devices()
