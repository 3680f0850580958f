"""The record of a model that is calibrated to one flight: calibration.json, beside a copy of the model. Without Keras.

calibration.json    level and scale, the flight, the labels behind them, and scores on its other labels
model/              the run or the export, as it was
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloudml_tf.utils.errors import RunError

CALIBRATION = "calibration.json"
CALIBRATED = "model"


class Calibration(BaseModel):
    """What `cloudml calibrate` found: in `space`, a prediction p becomes level + scale · p."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    flight: str = Field(description="The flight that it is of, and holds for.")
    camera: str = Field(description="Fingerprint of that flight's camera file.")
    run: str = Field(description="The run of the model.")
    space: str = Field(description="The space in which the model learns, in words.")
    level: float = Field(description="Added, in that space.")
    scale: float = Field(gt=0, description="Factor of a prediction, in that space.")
    labels: int = Field(gt=0, description="How many labels it was fitted to.")
    effective_labels: float = Field(gt=0, description="How many independent labels they are worth.")
    scores: dict[str, dict[str, Any]] = Field(
        default={}, description="On the flight's other labels: before, after, and of the best straight line."
    )

    @classmethod
    def of_file(cls, path: Path, content: Any) -> "Calibration":
        """That of a file with this content. Raises `RunError` for a damaged one."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "its content"
            raise RunError(f"{path}: {where}: {first['msg']}. The calibration is damaged; make it again.") from None

    @property
    def formula(self) -> str:
        """In words: "ln(cod) = -0.103 + 1.21 · prediction"."""
        return f"{self.space} = {self.level:+.3g} + {self.scale:.3g} · prediction"

    @property
    def words(self) -> str:
        """What was fitted, and to what."""
        return (
            f"{self.formula}, from {self.labels} labels of flight {self.flight} (worth {self.effective_labels:.1f} "
            f"independent ones)"
        )
