"""Write tests/data/pth/: state dicts of the pair as torch.save writes them, for machines without torch.

python -m tests.data.make_pth

All weights are those of tests/support.py, so that what a reader must find is known, and the generator's answers are in
torch_facts.npz. The small discriminators are the corpus of the fuzzer, too.

- netG.pth: float32, `module.` before every key, as released;
- netG_half.pth: float16, under `state_dict` of a checkpoint with an epoch, losses and an optimizer's state;
- netD.pth: float32, bare;
- small/netD.pth: a smaller one, as PyTorch 1.9 wrote it;
- small/netD_views.pth: float64, all tensors views of one storage, the kernels with the strides of another layout;
- small/netD_old.pth: the format before PyTorch 1.6.
"""

import pathlib
import zipfile

import torch

from tests.data.make_torch_facts import SIZES, build

FOLDER = pathlib.Path(__file__).with_name("pth")
SMALL = SIZES | {"ndf": 2}


def views(state_dict):
    """The same numbers in float64 as views of one storage, kernels stored kH kW Cout Cin."""
    flat = torch.empty(sum(v.numel() for v in state_dict.values() if v.is_floating_point()), dtype=torch.float64)
    result, start = {}, 0
    for key, value in state_dict.items():
        if value.is_floating_point():
            stored = value.permute(2, 3, 0, 1) if value.dim() == 4 else value
            place = flat[start : start + value.numel()].view(stored.shape)
            place.copy_(stored)
            start += value.numel()
            value = place.permute(2, 3, 0, 1) if value.dim() == 4 else place
        result[key] = value
    return result


def without_news(path):
    """Rewrite a file as 1.9 wrote it: no byteorder, no format version, no serialization id."""
    with zipfile.ZipFile(path) as file:
        members = [(i.filename, file.read(i)) for i in file.infolist()]
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members:
            if not name.endswith(("byteorder", ".format_version", ".storage_alignment", "serialization_id")):
                file.writestr(zipfile.ZipInfo(name), data)


def main():
    (FOLDER / "small").mkdir(parents=True, exist_ok=True)
    g, d = build(**SIZES)
    torch.save({f"module.{k}": v for k, v in g.state_dict().items()}, FOLDER / "netG.pth")
    optimizer = torch.optim.Adam(d.parameters(), lr=3e-4, betas=(0.5, 0.999)).state_dict()
    half = {k: v.half() if v.is_floating_point() else v for k, v in g.state_dict().items()}
    checkpoint = {"epoch": 7, "losses": [[0.7, 1.5]], "best": None, "optimizer": optimizer, "state_dict": half}
    torch.save(checkpoint, FOLDER / "netG_half.pth")
    torch.save(d.state_dict(), FOLDER / "netD.pth")
    _, small = build(**SMALL)
    torch.save(small.state_dict(), FOLDER / "small" / "netD.pth")
    without_news(FOLDER / "small" / "netD.pth")
    torch.save(views(small.state_dict()), FOLDER / "small" / "netD_views.pth")
    torch.save(small.state_dict(), FOLDER / "small" / "netD_old.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
