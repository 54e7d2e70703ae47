"""What people see of a run: pages, study tables, loggers, progress, dashboards."""
