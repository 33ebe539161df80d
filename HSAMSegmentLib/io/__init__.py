"""Reading scans: NIfTI, NRRD, MetaImage and DICOM."""
