"""The cohort report: one web page about many scans."""
