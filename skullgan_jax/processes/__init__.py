"""Several processes, one job."""
