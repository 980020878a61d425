"""Who is taken for one patient, by what folders and headers say."""

import os

import nibabel
import numpy as np
import pytest

from skullgan_jax.ct import find, subjects
from tests.ct import heads

SMALL = np.zeros((3, 64, 64), np.int16)


def write(folder, *, patient="", **tags):
    heads.write_dicom(folder, SMALL, PatientID=patient, **tags)


def write_nifti(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = np.full((64, 64, 3), len(str(path)) + sum(map(ord, path.name)), np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-0.5, -0.5, 3, 1])), path)


def scans(*inputs):
    """By name, what tells whose each is; hashes are left out."""
    found, _ = find.find(inputs, spacing=None, complain=pytest.fail)
    opened = [make(*arguments) for make, arguments in found]
    return {scan.name: subjects.hashed(scan.told_by, lambda text: text.replace(" ", "_")) for scan in opened}


def apart(*inputs, by_folder=False):
    """The scans of each subject, by the end of their names."""
    told = subjects.tell_apart(scans(*inputs), {}, by_folder)
    root = os.path.commonpath(inputs)
    groups = [{os.path.relpath(n.split(" (")[0], root) for n in told if told[n] == s} for s in set(told.values())]
    return sorted(" ".join(sorted(g)) for g in groups)


def test_patients_by_their_id_whatever_the_folders(tmp_path):
    for folder, patient in (("H60/a", "A"), ("H30/a", "A "), ("H60/b", "B"), ("c/H60", "B")):
        write(tmp_path / folder, patient=patient)
    assert apart(tmp_path) == ["H30/a H60/a", "H60/b c/H60"]


@pytest.mark.parametrize("uid", [None, "", "1.2.3"])
def test_a_series_is_parted_by_what_its_name_does_not_tell(tmp_path, uid):
    """A name that is missing, or one for all."""
    write(tmp_path / "1", patient="A", SeriesInstanceUID=uid)
    write(tmp_path / "2", patient="B", SeriesInstanceUID=uid)
    write(tmp_path / "3", StudyInstanceUID="1.3", SeriesInstanceUID=uid)
    write(tmp_path / "4", StudyInstanceUID="1.4", SeriesInstanceUID=uid)
    write(tmp_path / "5", SeriesInstanceUID=uid)
    write(tmp_path / "6", SeriesInstanceUID=uid)
    assert apart(tmp_path) == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("by_folder", [False, True])
def test_patient_study_series_without_an_id(tmp_path, by_folder):
    for patient in "AB":
        for series in ("study1/H60", "study1/H30", "study2/H60"):
            write(tmp_path / patient / series)
    expected = ["A/study1/H30 A/study1/H60 A/study2/H60", "B/study1/H30 B/study1/H60 B/study2/H60"]
    assert apart(tmp_path, by_folder=by_folder) == expected
    one = [tmp_path / patient for patient in "AB"]
    assert apart(*one, tmp_path, by_folder=by_folder) == expected


@pytest.mark.parametrize("by_folder", [False, True])
@pytest.mark.parametrize("tag", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_series_of_one_acquisition_stay_together(tmp_path, tag, by_folder):
    for folder, said in (("1", "1.1"), ("2", "1.1"), ("3", "1.2"), ("4/x", "1.2")):
        write(tmp_path / folder, **{tag: said})
    assert apart(tmp_path, by_folder=by_folder) == ["1 2", "3 4/x"]


def test_a_study_or_a_folder_of_many_patients_ties_nothing_together(tmp_path):
    """As of an anonymiser that writes one UID for all, and of a hospital's folder."""
    for name in "AB":
        write(tmp_path / "h" / name, patient=name, StudyInstanceUID="1.2")
    write(tmp_path / "C" / "1", patient="C", StudyInstanceUID="1.3")
    write(tmp_path / "C" / "2", StudyInstanceUID="1.4")
    write_nifti(tmp_path / "C" / "ct.nii")
    assert apart(tmp_path) == ["C/1 C/2 C/ct.nii", "h/A", "h/B"]


@pytest.mark.parametrize("by_folder", [False, True])
def test_sessions_of_one_participant(tmp_path, by_folder):
    for path in ("sub-01/ses-1/anat/ct.nii", "sub-01/ses-2/anat/ct.nii", "sub-02/ses-1/anat/ct.nii"):
        write_nifti(tmp_path / "data" / path)
    assert len(apart(tmp_path, by_folder=by_folder)) == 2
    assert len(apart(tmp_path / "data", by_folder=by_folder)) == 2
    assert len(apart(tmp_path / "data" / "sub-01", by_folder=by_folder)) == 1


def test_volumes_right_in_the_input_are_of_a_patient_each(tmp_path):
    for name in ("a.nii", "b.nii"):
        write_nifti(tmp_path / name)
    assert apart(tmp_path) == apart(tmp_path / "a.nii", tmp_path / "b.nii") == ["a.nii", "b.nii"]
    assert len(apart(tmp_path, by_folder=True)) == 1


@pytest.mark.parametrize("by_folder", [False, True])
def test_a_folder_is_the_same_however_it_is_typed(tmp_path, monkeypatch, by_folder):
    for name in ("h/A/1", "h/A/2", "h/B"):
        write(tmp_path / name)
    write_nifti(tmp_path / "h" / "c.nii")
    (tmp_path / "link").symlink_to("h")
    monkeypatch.chdir(tmp_path)
    typed = [tmp_path / "h", *map(type(tmp_path), ("h", "./h/", "h/../h", "link"))]
    told = [subjects.tell_apart(scans(path), {}, by_folder) for path in typed]
    assert [sorted(t.values()) for t in told] == [sorted(told[0].values())] * 5
    # One patient's folder first, all of them later.
    first, both = scans(tmp_path / "h" / "A"), scans(tmp_path / "h")
    together = subjects.tell_apart({**{f"{n} then": w for n, w in first.items()}, **both}, {}, by_folder)
    assert len(set(together.values())) == len(set(told[0].values())) == 3


def test_who_was_one_subject_stays_one():
    of = {"x": frozenset({"id a"}), "y": frozenset({"study s"}), "z": frozenset({"id b"})}
    assert subjects.tell_apart(of, {}, False) == {"x": "a", "y": "s", "z": "b"}
    assert subjects.tell_apart(of, {"x": {"old"}, "y": {"old"}}, False) == {"x": "old", "y": "old", "z": "b"}
