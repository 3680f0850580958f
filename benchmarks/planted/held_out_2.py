"""A second set, written down before any of it was run, after the first had been looked at.

The aircraft of the healthy runs is slower: a frame is a pixel, so that rounding a label's time to a frame costs little.
"""

from typing import Any

from planted.faults import Case, brighten, copy_flight, shift_lidar, simulation, training
from planted.held_out import flights


def slow(count: int, **changes: Any) -> dict[str, Any]:
    """Flights at 100 m/s."""
    return flights(count, ground_speed_m_s=100.0, **changes)


ONE_FRAME: dict[str, Any] = {"temporal_frames": 1, "model": {"architecture": "single_frame"}}
SECOND = [
    Case(
        "2 no signal, histogram head",
        "no correlation",
        {
            **flights(5, preset="no_signal", seed=201, frames_per_flight=500),
            "model": {"head": "histogram", "bins": 16},
            "loss": {"base": "cross_entropy", "weight": 0.5},
            "seed": 51,
        },
    ),
    Case(
        "2 the original's third recipe, hard",
        "collapse",
        {
            **flights(4, preset="hard", seed=202, frames_per_flight=400),
            "temporal_frames": 7,
            "overweight": {"factor": 1.5},
            "model": {"output_init": 0.05, "dropout": 0.3},
            "loss": {"base": "huber", "weight": 0},
            "seed": 52,
            **training(
                learning_rate=2e-4,
                warmup_epochs=30,
                weight_decay=0.04,
                early_stopping_monitor="val_loss",
                early_stopping_patience=2,
                max_epochs=5,
                batch_size=20,
            ),
        },
    ),
    Case(
        "2 small output weights, simple network",
        "collapse",
        {
            **flights(4, seed=203, frames_per_flight=500),
            "model": {"architecture": "simple_cnn", "output_init": 0.001},
            "loss": {"weight": 0.2},
            "seed": 53,
            **training(learning_rate=1e-4, max_epochs=4),
        },
    ),
    Case(
        "2 concordance of 20, hard, one frame",
        "inflation",
        {**flights(5, preset="hard", seed=204), **ONE_FRAME, "loss": {"form": "ccc", "weight": 20}, "seed": 54},
    ),
    Case(
        "2 test flight at 0.55, log",
        "bias",
        {
            **flights(7, seed=205, frames_per_flight=500),
            "target": {"transform": "log"},
            "loss": {"base": "huber", "weight": 0.25},
            "seed": 55,
        },
        edit=brighten(0.55, "sim07"),
    ),
    Case(
        "2 validation is a noisy copy, quantile head",
        "leak",
        {
            **flights(6, seed=206, frames_per_flight=500),
            "model": {"head": "quantile", "quantiles": 7},
            "loss": {"base": "pinball"},
            "seed": 56,
        },
        edit=copy_flight("sim03", "sim05", 0.05),
    ),
    Case(
        "2 dropout 0.85, overweight 10, seven frames",
        "over-regularised",
        {
            **flights(4, seed=207, frames_per_flight=500),
            "temporal_frames": 7,
            "overweight": {"factor": 10.0},
            "model": {"dropout": 0.85},
            "seed": 57,
        },
    ),
    Case(
        "2 rate 3e-6, log, huber",
        "learning rate",
        {
            **flights(6, seed=208, frames_per_flight=500),
            "target": {"transform": "log"},
            "loss": {"base": "huber"},
            "seed": 58,
            **training(learning_rate=3e-6, schedule="constant"),
        },
    ),
    Case(
        "2 a profile in 12 s, one flight of 5 minutes",
        "too few labels",
        {
            **flights(3, seed=209, frames_per_flight=300, lidar_interval_s=12.0),
            **ONE_FRAME,
            "seed": 59,
            **training(batch_size=8, max_epochs=20),
        },
    ),
    Case(
        "2 clock 14 s late, time blocks",
        "bad clock",
        {
            **simulation(flight_count=4, seed=210, frames_per_flight=800),
            "split": {"kind": "time_blocks", "gap_s": 40.0},
            "seed": 60,
        },
        edit=shift_lidar(14.0),
    ),
    Case("2 healthy", "healthy", {**slow(6, seed=221, frames_per_flight=700), "seed": 71}),
    Case(
        "2 healthy, no penalty, more dropout",
        "healthy",
        {**slow(7, seed=222), "loss": {"weight": 0}, "model": {"dropout": 0.2}, "seed": 72},
    ),
    Case(
        "2 healthy, histogram head, log",
        "healthy",
        {
            **slow(6, seed=223),
            "model": {"head": "histogram", "bins": 24},
            "loss": {"base": "cross_entropy", "weight": 0.1},
            "target": {"transform": "log"},
            "seed": 73,
        },
    ),
    Case(
        "2 healthy, quantile head, five frames",
        "healthy",
        {
            **slow(6, seed=224),
            "temporal_frames": 5,
            "model": {"head": "quantile", "quantiles": 7},
            "loss": {"base": "pinball", "weight": 0.1},
            "seed": 74,
        },
    ),
    Case(
        "2 healthy, absolute loss",
        "healthy",
        {**slow(6, seed=225), "loss": {"base": "mae", "weight": 0.25}, "seed": 75},
    ),
    Case(
        "2 healthy, time blocks",
        "healthy",
        {
            **simulation(flight_count=4, seed=226, frames_per_flight=900, ground_speed_m_s=100.0),
            "split": {"kind": "time_blocks", "gap_s": 90.0},
            "seed": 76,
        },
    ),
    Case(
        "2 healthy, leave one out",
        "healthy",
        {
            **simulation(flight_count=7, seed=227, frames_per_flight=500, ground_speed_m_s=100.0),
            "split": {"kind": "leave_one_out", "test": "sim04", "exclude": ["sim01"]},
            "seed": 77,
        },
    ),
    Case(
        "2 healthy, one frame, logarithm of radiance",
        "healthy",
        {
            **slow(6, seed=228),
            "temporal_frames": 1,
            "model": {"architecture": "single_frame", "footprint": 3},
            "preprocessing": {"log_offset": 0.01},
            "seed": 78,
        },
    ),
    Case(
        "2 healthy, hard imagery", "healthy", {**slow(7, seed=229, preset="hard"), "loss": {"weight": 0.1}, "seed": 79}
    ),
    Case(
        "2 healthy, gated penalty, averaged, label density",
        "healthy",
        {
            **slow(5, seed=230, frames_per_flight=700),
            "loss": {"weight": 1.0, "schedule": "gate"},
            "label_density": {"enabled": True},
            "seed": 80,
            **training(ema_momentum=0.95, early_stopping_monitor="composite"),
        },
    ),
]
