"""The command on folders as hospitals export them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from skullgan_jax import prepare
from skullgan_jax.data import open_data
from tests.ct import heads


def command(capfd, *flags):
    """Exit status and lines on stderr."""
    with pytest.raises(SystemExit) as ended:
        prepare.run(list(map(str, flags)))
    return ended.value.code, capfd.readouterr().err.splitlines()


def test_from_a_hospital_folder_with_much_that_is_wrong(tmp_path, capfd):
    source, output = tmp_path / "SECRETNAME", tmp_path / "skulls"
    volume = heads.head(shape=(5, 400, 400))
    for name in ("one", "deep/er/two"):
        heads.write_dicom(source / name, volume, patient=f"SECRETNAME{name[:3]}")
    heads.write_dicom(source / "scout", volume[:1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    heads.write_dicom(source / "mr", volume[:1], Modality="MR")
    heads.write_dicom(source / "nowhere", volume[:1], ImagePositionPatient=None)
    heads.write_dicom(source / "single", volume[:1])
    heads.write_dicom(source / "raw", volume[:1], RescaleSlope=None)
    heads.write_dicom(source / "water", np.clip(volume, -1000, 40))
    heads.write_dicom(source / "short", volume[:4], PixelData=b"12")
    (source / "junk.dcm").write_bytes(b"no")
    (source / "all.zip").write_bytes(b"PK")
    (source / "README").write_text("as exported")
    status, lines = command(capfd, f"--input={source}", f"--output={output}", "--held_out=0.5")
    assert status == 1
    problems = [line for line in lines if line.startswith("left out: ")]
    for wanted in ("MR instead", "ImagePositionPatient", "1 slice,", "rescale slope", "no vault", "truncated"):
        assert sum(wanted in line for line in problems) == 1, wanted
    assert any("junk.dcm: not DICOM" in line for line in problems)
    assert any("archive" in line for line in problems)
    assert len(problems) == 8
    summary = json.loads((output / "summary.json").read_text())
    assert len({scan["subject"] for scan in summary["scans"].values()}) == 2
    everything = b"".join(p.read_bytes() for p in output.rglob("*") if p.is_file())
    for secret in (b"SECRETNAME", b"19700102", str(tmp_path).encode()):
        assert secret not in everything
    config = SimpleNamespace(name="skull", path=str(output), pixel_mm=1, num=0)
    train, held_out = open_data(config, 0), open_data(config, 0, "held_out")
    assert train.pixel_mm == 0.46875
    assert len(train.images) == len(held_out.images) > 100


def test_nothing_to_do_is_exit_2(tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    status, lines = command(capfd, f"--input={tmp_path / 'empty'}", f"--output={tmp_path / 'out'}")
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith("error: --input: no CT")
    assert not (tmp_path / "out").exists()
