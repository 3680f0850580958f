"""How a recipe is chosen, and what a network is averaged with, by leaving out each training flight in turn."""

import re
from typing import Any

from pydantic import Field, field_validator

from cloudml_tf.config.data import Settings

AS_IT_IS = "as it is"  # the recipe of the configuration itself
CHANGED = ("model.", "loss.", "training.", "augmentation.")  # what a recipe may change
CHOSEN = "selection.json"  # in the run folder
NAME = r"[A-Za-z0-9][A-Za-z0-9 ._-]*"  # of a recipe: also that of a file
TAKEN = (AS_IT_IS, "baselines", "mean", "ridge", "gradient_boosting", "plane_sweep")  # by other rows and files


class Selection(Settings):
    """Leave out each flight of the training and validation splits in turn before the training itself."""

    recipes: dict[str, dict[str, Any]] = Field(
        {},
        max_length=2,
        description="Changes to compare with the configuration as it is, by name, such as "
        '{"short": {"training.max_epochs": 4}}; the best on flights left out is trained. At most two.',
    )
    average: bool = Field(
        True,
        description="Average the network with ridge regression and gradient boosting, with weights that are fitted on "
        "flights left out.",
    )

    @field_validator("recipes")
    @classmethod
    def _only_the_network(cls, recipes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Refuse changes of what is read or scored: recipes are compared on the same examples."""
        for name, changes in recipes.items():
            if name in TAKEN or not re.fullmatch(NAME, name):
                raise ValueError(
                    f"a recipe's name has letters, digits, spaces and ._-, and is none of {', '.join(TAKEN)}. "
                    f"Received: '{name}'"
                )
            wrong = next((key for key in changes if not key.startswith(CHANGED)), None)
            if wrong is not None:
                fields = ", ".join(f"{start}*" for start in CHANGED)
                raise ValueError(
                    f"a recipe changes {fields}, and '{wrong}' is none: recipes are compared on the same examples"
                )
        return recipes
