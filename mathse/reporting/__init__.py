"""The view of a run for people: pages, study tables, loggers, progress, dashboards."""
