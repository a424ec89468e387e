"""Where runs and students are kept for comparison: protocols, and MLflow, which implements them.

Nothing else in kdsweep imports MLflow.
"""

import os

# MLflow reads these when it is imported, so they are set before any module here imports it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# At INFO it would print a line for each table of a new database.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# The caller waits for an outage to end and keeps what it has to send. One call must not block for
# the four minutes of MLflow's defaults.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
