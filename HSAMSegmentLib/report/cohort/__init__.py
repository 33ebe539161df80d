"""The report of a cohort: one web page about many scans."""
