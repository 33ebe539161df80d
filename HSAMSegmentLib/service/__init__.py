"""The HTTP service that segments scans for others: uploads, a job queue, and one-time delivery of each result.

Only the modules `app`, `routes`, `monai_label`, `answers`, `delivery`, `uploads` and `server` import FastAPI, uvicorn
or their dependencies, which the extra `serve` installs.
"""
