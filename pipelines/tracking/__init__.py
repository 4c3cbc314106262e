"""Tracking: what was run, on what, with what result."""

import os

# MLflow reads these. One try per request, since deliveries are repeated anyway; no usage statistics
# to strangers.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A bar for each handful of small files says nothing, least of all in a log.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
