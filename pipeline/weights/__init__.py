"""A finished checkpoint in use: opened, inspected, converted, averaged."""
