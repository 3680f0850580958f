"""What a worker does that is not the chief: it trains in step with the others, and writes nothing.

It reads the same configuration and flights as the chief. Scores, report and export are the chief's.
"""

from pathlib import Path

from cloudml_tf.config.run_folder import check_same, run_to_resume
from cloudml_tf.config.schema import Config
from cloudml_tf.train.devices import begin
from cloudml_tf.train.warm_start import first_model
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_COLLAPSED, EXIT_OK
from cloudml_tf.utils.tf_logging import quiet_tensorflow


def work(config: Config, console: Console, run_dir: str | None = None, resume: bool = False) -> int:
    """Take part in a training; the exit code. With `resume` it reads the chief's checkpoint."""
    from cloudml_tf.data.prepare import prepare

    folder = run_to_resume(config, run_dir) if resume else Path()
    with console.progress("reading flights") as progress:
        prepared = prepare(config, progress, progress)
    if resume:
        check_same(folder, config, prepared.fingerprint)
    quiet_tensorflow()
    from cloudml_tf.train import fit, transfer

    begin(config.training, console)
    model = first_model(config, prepared)
    if config.pretraining.enabled:
        transfer.start_from_pretraining(model, config, prepared, folder, console)
    fitted = fit.fit(model, config, prepared, folder, console, resume)
    console.say(f"{fitted.ending.rstrip('.')}; the chief writes the results")
    return EXIT_COLLAPSED if fitted.collapsed else EXIT_OK
