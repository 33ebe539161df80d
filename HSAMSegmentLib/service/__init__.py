"""The service that segments scans for others over HTTP: uploads, a queue of jobs, and one delivery of each result.

Only the modules `app`, `routes`, `monai_label`, `answers`, `delivery`, `uploads` and `server` import FastAPI, uvicorn
or their parts, which the extra `serve` installs.
"""
