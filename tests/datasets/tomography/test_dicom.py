"""CT series in DICOM: Hounsfield units, geometry, and the message for each thing that can be wrong."""

import numpy as np
import pytest

from scidiff.datasets.tomography import read_dicom_series
from scidiff.errors import InputError

pydicom = pytest.importorskip("pydicom", reason="pydicom (the extra io) is not installed")


def volume() -> np.ndarray:
    """(z, y, x) stored numbers, all different."""
    return np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def write(folder, z, stored, **changes):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = f"1.2.3.{z}"
    image.SOPClassUID, image.SeriesInstanceUID, image.Modality, image.KVP = CTImageStorage, "1.2.9", "CT", "120"
    image.Rows, image.Columns = stored.shape
    image.PixelSpacing, image.ImagePositionPatient = [0.8, 0.7], [0, 0, 2.5 * z]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 1
    image.RescaleSlope, image.RescaleIntercept = 2, -1000
    image.PixelData = stored.astype("<i2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(image, name)
        else:
            setattr(image, name, value)
    path = folder / f"image{z}.dcm"
    image.save_as(path, enforce_file_format=True)
    return path


def series(folder, changes=None):
    for z in (2, 0, 3, 1):  # the order of the names is not that of the slices
        write(folder, z, volume()[z], **((changes or {}).get(z, {})))
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_series_is_a_volume_in_hounsfield_units(tmp_path) -> None:
    found = read_dicom_series(series(tmp_path))
    assert found.dims == ("z", "y", "x") and found.attrs["units"] == "HU"
    np.testing.assert_array_equal(found, (2.0 * volume() - 1000)[:, :, ::-1])  # columns run to the patient's left
    np.testing.assert_allclose([float(np.diff(found[d])[0]) for d in "zyx"], [2.5, 0.8, 0.7])
    assert found["y"].attrs["units"] == "mm" and found.attrs["tube_voltage_kV"] == 120


def test_patients_scanned_face_down_are_turned(tmp_path) -> None:
    orientation = {z: {"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]} for z in range(4)}
    found = read_dicom_series(series(tmp_path, orientation))
    np.testing.assert_array_equal(found, (2.0 * volume() - 1000)[:, ::-1, :])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({1: {"SeriesInstanceUID": "1.2.10"}}, "'SeriesInstanceUID' differs: 2 series are mixed.*image"),
        ({z: {"Modality": "MR"} for z in range(4)}, r"image0.dcm: 'Modality' is MR, expected CT"),
        ({2: {"PixelSpacing": [0.8, 0.9]}}, r"image2.dcm: 'PixelSpacing' is \[0.8, 0.9\]"),
        ({z: {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]} for z in range(4)}, "tilted or not axial"),
        ({1: {"ImagePositionPatient": [0, 0, 5.0]}}, "slices are doubled"),
        ({3: {"ImagePositionPatient": [0, 0, 11.0]}}, "5.00 and 11.00 mm are 6.00 mm apart.*missing"),
        ({1: {"RescaleSlope": None}}, "image1.dcm: the DICOM image lacks RescaleSlope"),
        ({1: {"PixelSpacing": None}}, "image1.dcm: the DICOM image lacks PixelSpacing"),
        ({1: {"PixelData": b"\0\0"}}, "image1.dcm: 'PixelData' cannot be decoded"),
    ],
)
def test_wrong_series_are_named(tmp_path, changes, message) -> None:
    with pytest.raises(InputError, match=message):
        read_dicom_series(series(tmp_path, changes))


def test_an_empty_folder_is_no_series(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no DICOM images"):
        read_dicom_series(tmp_path)
    with pytest.raises(InputError, match="there is none"):
        read_dicom_series(tmp_path / "nowhere")
