"""Config in, Dagster definitions out; jobs, sensors and the command line."""
