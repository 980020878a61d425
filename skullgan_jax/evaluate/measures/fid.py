"""FID through torch-fidelity, an optional extra: the number that other papers print, with the protocol it hangs on."""

import numpy as np

from skullgan_jax.errors import InputError
from skullgan_jax.machine.extras import need

WINDOW_HU = (0.0, 2000.0)
LEAST = 2048  # Inception's features: with fewer slices their covariance is singular, and FID mostly counts slices


def _images(hu: np.ndarray):
    """A torch data set of (3, 128, 128) uint8."""
    import torch

    low, high = WINDOW_HU

    class Windowed(torch.utils.data.Dataset):
        def __len__(self):
            return len(hu)

        def __getitem__(self, i):
            grey = np.rint(np.clip((np.asarray(hu[i], np.float32) - low) / (high - low), 0, 1) * 255)
            return torch.from_numpy(grey.astype(np.uint8)).expand(3, -1, -1)

    return Windowed()


def check(num_real: int, num_fake: int) -> None:
    """Refuses before any work is done.

    Raises:
      InputError: there are too few slices, or torch-fidelity is not installed.
    """
    if min(num_real, num_fake) < LEAST:
        raise InputError(
            f"--fid: {num_real} reals and {num_fake} fakes; below {LEAST} each FID measures the number of slices more "
            f"than the slices; give more (--num={LEAST} or above), or leave --fid out: KID has no such bias"
        )
    need("torch_fidelity", "fid")


def fid(real: np.ndarray, fake: np.ndarray, weights: str | None = None) -> dict:
    """Fréchet Inception distance (Heusel et al. 2017, arXiv 1706.08500).

    Args:
      real: (N, 128, 128) HU, N >= 2048.
      fake: (M, 128, 128) HU, M >= 2048.
      weights: a file of torch-fidelity's Inception, None to let it download them.

    Returns:
      {"value", "protocol"}.

    Raises:
      InputError: too few slices, no torch-fidelity, or no weights.
    """
    check(len(real), len(fake))
    import torch_fidelity

    try:
        found = torch_fidelity.calculate_metrics(
            input1=_images(real),
            input2=_images(fake),
            fid=True,
            cuda=False,
            feature_extractor="inception-v3-compat",
            feature_extractor_weights_path=weights,
            cache=False,
            samples_shuffle=False,
            save_cpu_ram=True,  # no worker processes: forking one that runs JAX may hang
            verbose=False,
        )
    except (OSError, RuntimeError) as error:  # no network, no such file, or a file of something else
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"--fid: torch-fidelity failed ({reason}); give its Inception with --fid_weights") from None
    low, high = WINDOW_HU
    protocol = (
        f"torch-fidelity {torch_fidelity.__version__}, inception-v3-compat (2048 features of pool3), n = {len(real)} "
        f"real and {len(fake)} fake, window {low:g} to {high:g} HU to 8 bit, one grey channel repeated three times, "
        "resized from 128 to 299 pixels by TensorFlow 1's bilinear rule inside the extractor"
    )
    return {"value": float(found["frechet_inception_distance"]), "protocol": protocol}
