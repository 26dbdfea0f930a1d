"""The harness port and its adapters."""
