"""What a worker does that is not the chief: it trains in step with the others, and writes nothing.

It reads the same configuration and flights as the chief. Scores, report and export are the chief's.
"""

from pathlib import Path

from cloudml_tf.config import Config
from cloudml_tf.console import Console
from cloudml_tf.devices import begin
from cloudml_tf.errors import EXIT_COLLAPSED, EXIT_OK
from cloudml_tf.quiet import quiet_tensorflow
from cloudml_tf.runs import check_same, run_to_resume
from cloudml_tf.warm_start import first_model


def work(config: Config, console: Console, run_dir: str | None = None, resume: bool = False) -> int:
    """Take part in a training; the exit code. With `resume` it reads the chief's checkpoint."""
    from cloudml_tf.pipeline import prepare

    folder = run_to_resume(config, run_dir) if resume else Path()
    with console.progress("reading flights") as progress:
        prepared = prepare(config, progress, progress)
    if resume:
        check_same(folder, config, prepared.fingerprint)
    quiet_tensorflow()
    from cloudml_tf import training, transfer

    begin(config.training, console)
    model = first_model(config, prepared)
    if config.pretraining.enabled:
        transfer.start_from_pretraining(model, config, prepared, folder, console)
    fitted = training.fit(model, config, prepared, folder, console, resume)
    console.say(f"{fitted.ending.rstrip('.')}; the chief writes the results")
    return EXIT_COLLAPSED if fitted.collapsed else EXIT_OK
