"""What a finished run leaves: its curves, its progress, the exported model and slices of it."""

from skullgan_jax.command.progress import Progress, say
from skullgan_jax.model import load
from skullgan_jax.sampling import formats, job
from skullgan_jax.train import curves, monitor

_BLOCK = 256  # slices that are drawn before they are written


def finish(config, place, best: int, judged: dict[str, float]) -> None:
    """Curves, progress picture, exported model and sample slices of the best checkpoint.

    Args:
      config: of the run.
      place: where the workdir lies.
      best: the step of the checkpoint.
      judged: what it was judged by.
    """
    workdir = place.local
    curves.curves(workdir / "curves.png", monitor.read_records(workdir / "metrics.jsonl"), config.recipe, best)
    curves.progress(workdir / "progress.png", sorted((workdir / "samples").glob("[0-9]*.png")))
    place.bring("model/")  # of an earlier end, which is replaced
    trained = load.read(place)
    if trained.standing is None:  # a workdir keeps those of its best checkpoint
        trained.compute_standing(verbose=True)
    trained.save(workdir / "model")
    told = f": {monitor.words(judged)}" if judged else ""
    say(f"exported the best checkpoint (step {best}{told}) to {place}/model")
    if not config.final_slices:
        return
    drawn = trained.sampler(seed=config.seed).ranges(
        ((i, min(i + _BLOCK, config.final_slices)) for i in range(0, config.final_slices, _BLOCK)),
        Progress("sampled", config.final_slices, "slices"),
    )
    about = job.describe(trained, model=workdir.name, seed=config.seed) | {"num": config.final_slices}
    formats.write("npy", str(workdir / "slices.npy"), drawn, about)
    say(f"wrote {place}/slices.npy; look at {place}/slices.png, progress.png and curves.png beside it")
