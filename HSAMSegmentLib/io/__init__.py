"""Read scans: NIfTI, NRRD, MetaImage and DICOM."""
