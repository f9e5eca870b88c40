"""The typed configuration (`schema`), and reading it from YAML (`load`)."""
