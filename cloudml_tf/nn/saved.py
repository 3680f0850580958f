"""What Keras needs to know of a layer or loss, so that a saved model can be rebuilt."""

import inspect
from typing import Any

import keras

register = keras.saving.register_keras_serializable(package="cloudml_tf")


class Saved:
    """A mixin before a Keras class: registers each subclass of this package, and writes its constructor's arguments.

    A constructor keeps each of its own arguments as an attribute of that name.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("cloudml_tf."):  # users register their own
            register(cls)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild it: its own, and those of the Keras class."""
        named = [name for name in inspect.signature(type(self).__init__).parameters if name in vars(self)]
        return {**{name: getattr(self, name) for name in named}, **super().get_config()}  # type: ignore[misc]
