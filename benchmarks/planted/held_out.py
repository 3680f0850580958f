"""Cases that were written down before any of them was run, and on which no rule was written.

Each set holds ten failures and ten healthy runs. What the first run of a set gave is in docs/diagnose.md.
"""

from typing import Any

from planted.faults import Case, brighten, merged, shift_lidar, simulation, stray_light, training


def flights(count: int, **changes: Any) -> dict[str, Any]:
    """Simulated flights and a split by flight: the last but one validates, the last tests."""
    names = [f"sim{n:02d}" for n in range(1, count + 1)]
    split = {"kind": "flights", "train": names[:-2], "val": names[-2:-1], "test": names[-1:]}
    return {"split": split, **simulation(flight_count=count, **changes)}


FIRST = [
    Case(
        "1 no signal, one frame, log",
        "no correlation",
        {
            **flights(4, preset="no_signal", seed=101, frames_per_flight=700),
            "temporal_frames": 1,
            "model": {"architecture": "single_frame"},
            "target": {"transform": "log"},
            "loss": {"weight": 1.0},
            "seed": 11,
        },
    ),
    Case(
        "1 averaged start, hard",
        "collapse",
        {
            **flights(4, preset="hard", seed=102, frames_per_flight=500),
            "loss": {"base": "huber", "weight": 0},
            "model": {"output_init": 0.02},
            "seed": 12,
            **training(ema_momentum=0.995, max_epochs=6, learning_rate=3e-4),
        },
    ),
    Case(
        "1 long warm-up, stopped on the loss",
        "collapse",
        {
            **flights(3, preset="hard", seed=103, frames_per_flight=500),
            "temporal_frames": 7,
            "overweight": {"factor": 1.5},
            "model": {"output_init": 0.01, "dropout": 0.25},
            "loss": {"base": "huber", "weight": 0},
            "seed": 13,
            **training(
                learning_rate=3e-4,
                warmup_epochs=20,
                weight_decay=0.04,
                early_stopping_monitor="val_loss",
                early_stopping_patience=2,
                max_epochs=6,
                batch_size=20,
            ),
        },
    ),
    Case(
        "1 log penalty of 10, noisy labels",
        "inflation",
        {
            **flights(5, lidar_relative_noise=0.9, seed=104, frames_per_flight=500),
            "temporal_frames": 5,
            "loss": {"weight": 10, "form": "log"},
            "seed": 14,
        },
    ),
    Case(
        "1 stray light in the test flight",
        "bias",
        {**flights(5, seed=105, frames_per_flight=500), "loss": {"weight": 0.1}, "seed": 15},
        edit=stray_light(0.12, "sim05"),
    ),
    Case(
        "1 blocks 2 s apart, another flight",
        "leak",
        {
            **simulation(flight_count=3, seed=106, frames_per_flight=800),
            "split": {"kind": "time_blocks", "val_fraction": 0.15, "test_fraction": 0.15, "gap_s": 2.0},
            "temporal_frames": 1,
            "model": {"architecture": "single_frame"},
            "seed": 16,
        },
        held_out=brighten(0.75),
    ),
    Case(
        "1 weight decay 8 and dropout",
        "over-regularised",
        {
            **flights(4, seed=107, frames_per_flight=500),
            "temporal_frames": 1,
            "model": {"architecture": "single_frame", "dropout": 0.5},
            "loss": {"weight": 0.25},
            "seed": 17,
            **training(weight_decay=8.0),
        },
    ),
    Case(
        "1 rate 0.5, simple network",
        "learning rate",
        {
            **flights(4, seed=108, frames_per_flight=500),
            "model": {"architecture": "simple_cnn"},
            "seed": 18,
            **training(learning_rate=0.5, schedule="constant"),
        },
    ),
    Case(
        "1 a profile in 20 s, one flight",
        "too few labels",
        {**flights(3, seed=109, frames_per_flight=400, lidar_interval_s=20.0), "seed": 19, **training(batch_size=8)},
    ),
    Case(
        "1 clock 9 s early, hard",
        "bad clock",
        {**flights(6, preset="hard", seed=110), "temporal_frames": 5, "loss": {"weight": 1.0}, "seed": 20},
        edit=shift_lidar(-9.0),
    ),
    Case("1 healthy", "healthy", {**flights(6, seed=121), "seed": 31}),
    Case(
        "1 healthy, quantile head",
        "healthy",
        {
            **flights(5, seed=122),
            "model": {"head": "quantile", "quantiles": 5},
            "loss": {"base": "pinball"},
            "seed": 32,
        },
    ),
    Case(
        "1 healthy, histogram head",
        "healthy",
        {
            **flights(5, seed=123),
            "model": {"head": "histogram", "bins": 16},
            "loss": {"base": "cross_entropy", "weight": 0.1},
            "seed": 33,
        },
    ),
    Case(
        "1 healthy, huber, five frames",
        "healthy",
        {**flights(4, seed=124), "temporal_frames": 5, "loss": {"base": "huber", "weight": 1.0}, "seed": 34},
    ),
    Case(
        "1 healthy, absolute loss",
        "healthy",
        {**flights(5, seed=125), "loss": {"base": "mse_mae", "weight": 0.2}, "seed": 35},
    ),
    Case(
        "1 healthy, time blocks",
        "healthy",
        {
            **simulation(flight_count=5, seed=126),
            "split": {"kind": "time_blocks", "gap_s": 60.0, "val_fraction": 0.2, "test_fraction": 0.2},
            "seed": 36,
        },
    ),
    Case(
        "1 healthy, leave one out",
        "healthy",
        {**simulation(flight_count=5, seed=127), "split": {"kind": "leave_one_out", "test": "sim02"}, "seed": 37},
    ),
    Case(
        "1 healthy, one frame",
        "healthy",
        {
            **flights(4, seed=128, frames_per_flight=800),
            "temporal_frames": 1,
            "model": {"architecture": "single_frame"},
            "loss": {"weight": 0},
            "seed": 38,
        },
    ),
    Case(
        "1 healthy, simple network, concordance, log",
        "healthy",
        {
            **flights(5, seed=129),
            "model": {"architecture": "simple_cnn"},
            "loss": {"form": "ccc", "weight": 0.5},
            "target": {"transform": "log"},
            "seed": 39,
        },
    ),
    Case(
        "1 healthy, small batches, averaged",
        "healthy",
        {
            **flights(4, seed=130, frame_rows=14, frame_columns=14, lidar_interval_s=3.0),
            "loss": {"weight": 0.25, "form": "std"},
            "seed": 40,
            **merged(training(batch_size=16), training(ema_momentum=0.9, max_epochs=15)),
        },
    ),
]
