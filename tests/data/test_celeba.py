import errno
import os
import shutil

import ml_collections
import numpy as np
import pytest
from PIL import Image

from skullgan_jax.data import cache, celeba
from skullgan_jax.data.celeba import open_celeba
from skullgan_jax.data.open import open_data
from skullgan_jax.errors import InputError, MachineError
from skullgan_jax.slices.calibration import Calibration

NUM = 7


def picture(i: int) -> Image.Image:
    """178 x 218 RGB with detail that only an antialiased resize gets right; no two alike."""
    rng = np.random.default_rng(i)
    coarse = Image.fromarray(rng.integers(0, 256, (28, 23, 3), np.uint8)).resize((178, 218), Image.Resampling.BICUBIC)
    fine = rng.integers(-40, 41, (218, 178, 1))
    return Image.fromarray((np.asarray(coarse, int) + fine).clip(0, 255).astype(np.uint8))


def reference(path) -> np.ndarray:
    """What PIL (and torchvision through it) makes of a file."""
    grey = Image.open(path).convert("L")
    side = min(grey.size)
    left, top = (grey.width - side) // 2, (grey.height - side) // 2
    square = grey.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((128, 128), Image.Resampling.BILINEAR), int)


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """A folder of JPEGs, written out of order."""
    folder = tmp_path_factory.mktemp("jpegs")
    for i in reversed(range(NUM)):
        picture(i).save(folder / f"{i + 1:06}.jpg", quality=95, subsampling=(i % 2) * 2)
    return folder


@pytest.fixture(scope="module")
def tfds_dir(jpegs, tmp_path_factory):
    """The same images as a TFDS dataset: 3 to train in two shards, 2 to validate, 2 to test."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    data_dir = tmp_path_factory.mktemp("tensorflow_datasets")
    version = data_dir / "celeb_a" / "2.1.0"
    version.mkdir(parents=True)
    image = tfds.features.Image(shape=(218, 178, 3), encoding_format="jpeg")
    features = tfds.features.FeaturesDict(dict(image=image, identity=np.int64))
    splits, files = [], iter(sorted(jpegs.glob("*.jpg")))
    for split, lengths in dict(train=[2, 1], validation=[2], test=[2]).items():
        splits.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=0))
        for shard, length in enumerate(lengths):
            name = f"celeb_a-{split}.tfrecord-{shard:05}-of-{len(lengths):05}"
            with tf.io.TFRecordWriter(str(version / name)) as writer:
                for _ in range(length):
                    writer.write(features.serialize_example(dict(image=str(next(files)), identity=1)))
    tfds.folder_dataset.write_metadata(data_dir=version, features=features, split_infos=splits)
    return data_dir


@pytest.fixture
def no_decoding(monkeypatch):
    def decode(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(celeba, "_decode", decode)


def test_folder_of_jpegs(jpegs, tmp_path):
    images = open_celeba(str(jpegs), NUM, str(tmp_path))
    assert isinstance(images, np.memmap)
    assert images.shape == (NUM, 128, 128)
    assert images.dtype == np.uint8
    for i, image in enumerate(images):
        error = np.abs(image.astype(int) - reference(jpegs / f"{i + 1:06}.jpg"))
        assert error.max() <= 2
        assert error.mean() < 0.4
    parent = tmp_path / "up"
    parent.mkdir()
    (parent / "img_align_celeba").symlink_to(jpegs)
    np.testing.assert_array_equal(open_celeba(str(parent), NUM, str(tmp_path)), images)


@pytest.mark.parametrize("size", [(128, 128), (300, 150), (64, 90), (131, 128)])
def test_other_sizes_and_png(tmp_path, size):
    picture(0).resize(size).save(tmp_path / "a.png")
    assert np.abs(open_celeba(str(tmp_path), 1)[0] - reference(tmp_path / "a.png")).max() <= 2


def test_grey_weights(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((218, 178, 3), 255 * np.eye(3)[i], np.uint8)).save(tmp_path / f"{i}.png")
    assert open_celeba(str(tmp_path), 3)[:, 60, 60].tolist() == [76, 150, 29]  # 255 (0.299, 0.587, 0.114)


@pytest.mark.parametrize("below", ["", "celeb_a", "celeb_a/2.1.0"])
def test_tfds(tfds_dir, jpegs, tmp_path, below):
    images = open_celeba(str(tfds_dir / below), NUM, str(tmp_path))
    np.testing.assert_array_equal(images, open_celeba(str(jpegs), NUM, str(tmp_path)))


def test_tfds_by_default(tfds_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_dir))
    assert open_celeba(num=4).shape == (4, 128, 128)
    assert [p.name[:9] for p in (tfds_dir / "skullgan_jax_cache").iterdir()] == ["celeba_4_"]


def test_tfds_takes_the_newest_complete_version(tmp_path):
    for name in ("2.0.1", "2.1.0", "10.0.0", "11.0.0.incompleteABC"):
        (tmp_path / "celeb_a" / name).mkdir(parents=True)
        (tmp_path / "celeb_a" / name / "dataset_info.json").touch()
    assert celeba._find_version(tmp_path).name == "10.0.0"


def test_decoded_once(jpegs, tmp_path, request):
    first = open_celeba(str(jpegs), 3, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    request.getfixturevalue("no_decoding")
    np.testing.assert_array_equal(open_celeba(str(jpegs), 3, str(tmp_path)), first)
    with pytest.raises(AssertionError, match="decoded again"):
        open_celeba(str(jpegs), 4, str(tmp_path))


def test_other_files_are_another_source(tmp_path):
    for i in range(2):
        picture(i).save(tmp_path / f"{i}.jpg")
    one = open_celeba(str(tmp_path), 2)
    picture(2).save(tmp_path / "1.jpg")
    two = open_celeba(str(tmp_path), 2)
    assert len(list((tmp_path / "skullgan_jax_cache").iterdir())) == 2
    np.testing.assert_array_equal(one[0], two[0])
    assert not np.array_equal(one[1], two[1])


@pytest.mark.parametrize("variable", ["", "XDG_CACHE_HOME"])
def test_what_is_decoded_falls_back_to_the_cache_of_the_user(variable, jpegs, own_home, monkeypatch):
    if variable:
        monkeypatch.setenv(variable, str(own_home / "scratch"))
    (jpegs / "skullgan_jax_cache").touch()  # a file where the folder should be: cannot be written, even by root
    try:
        images = open_celeba(str(jpegs), 2)
    finally:
        (jpegs / "skullgan_jax_cache").unlink()
    assert os.path.dirname(images.filename) == str(own_home / ("scratch" if variable else ".cache") / "skullgan_jax")


def problem(*args) -> str:
    with pytest.raises(InputError) as caught:
        open_celeba(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_there(tmp_path):
    expected = "holds no CelebA: run `tfds build celeb_a`, or set config.data.path to a folder of JPEGs"
    assert problem(str(tmp_path)) == f"{tmp_path} {expected}"
    assert problem(str(tmp_path / "no")) == f"{tmp_path}/no {expected}"
    assert problem("gs://b/c") == "gs://b/c is not on this machine: copy it to a local disk and give that path"


def test_too_few(jpegs, tfds_dir, tmp_path):
    assert problem(str(jpegs), 8, str(tmp_path)) == f"{jpegs} holds 7 images, fewer than 8: lower config.data.num"
    version = tfds_dir / "celeb_a" / "2.1.0"
    assert problem(str(tfds_dir), 8, str(tmp_path)) == (
        f"{version} holds 7 images, fewer than 8: lower config.data.num"
    )
    assert problem(str(jpegs), 0) == "config.data.num is 0: give 1 or more"


@pytest.mark.parametrize("damage", ["text", "cut"])
def test_an_image_that_cannot_be_decoded(tmp_path, damage):
    for i in range(6):
        picture(i).save(tmp_path / f"{i}.jpg")
    bad = tmp_path / "4.jpg"
    bad.write_bytes(b"not an image" if damage == "text" else bad.read_bytes()[:3000])
    line = problem(str(tmp_path), 6)
    assert line.startswith(f"{bad} cannot be decoded (")
    assert line.endswith("): replace or remove it")
    assert not any(c in line for c in "{}[]")
    assert list((tmp_path / "skullgan_jax_cache").iterdir()) == []  # nothing half-written


def test_a_damaged_record_is_named(tfds_dir, tmp_path):
    version = tmp_path / "celeb_a" / "2.1.0"
    shutil.copytree(tfds_dir / "celeb_a" / "2.1.0", version)
    record = sorted(version.glob("*validation.tfrecord*"))[0]
    content = bytearray(record.read_bytes())
    content[500] ^= 0xFF
    record.write_bytes(content)
    line = problem(str(tmp_path), NUM)
    assert line.startswith(f"{version}: image 3 of train+validation+test cannot be decoded (")


def test_broken_tfds_directories(tfds_dir, tmp_path):
    version = tmp_path / "celeb_a" / "2.1.0"
    shutil.copytree(tfds_dir / "celeb_a" / "2.1.0", version)
    (version / "features.json").unlink()
    assert problem(str(tmp_path), 2).startswith(f"{version} is no TFDS dataset of images (")
    (version / "dataset_info.json").write_text("{")
    assert problem(str(tmp_path), 2).startswith(f"{version} is no TFDS dataset of images (")


def test_a_link_to_nowhere(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone")
    assert problem(str(tmp_path), 1) == f"{tmp_path}/a.jpg cannot be read: No such file or directory"


def test_no_room(jpegs, tmp_path):
    (tmp_path / "file").touch()
    assert problem(str(jpegs), 2, str(tmp_path / "file")).startswith(f"{tmp_path}/file cannot be written (")


def test_a_full_disk(tmp_path):
    def images():
        yield np.zeros((128, 128), np.uint8)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(MachineError, match=r"x\.npy cannot be written \(No space left on device\): it takes 1\.6 GB"):
        cache.cached("x.npy", [tmp_path], images, num=100_000, dtype=np.uint8, what="")
    assert list(tmp_path.iterdir()) == []


def test_open_data(jpegs, tmp_path):
    config = ml_collections.ConfigDict(dict(name="celeba", path=str(jpegs), num=3, pixel_mm=0.46875))
    dataset = open_data(config, seed=0)
    assert dataset.images.shape == (3, 128, 128)
    assert dataset.calibration == Calibration(0, 255)
    assert dataset.name == "celeba"


def test_prepared_skulls_are_no_faces(tmp_path):
    """Their pictures would be taken for some, and so would their shards."""
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "overview.png").touch()
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(InputError, match="holds skulls from prepare, no CelebA: give them with"):
        celeba.open_celeba(str(tmp_path), 3)
