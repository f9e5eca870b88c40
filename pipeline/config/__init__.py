"""The typed tree (`schema`), names of networks (`architecture`), reading YAML (`load`)."""
