"""What is true of slices in HU: their size, calibration, radiology, near duplicates, pictures."""
