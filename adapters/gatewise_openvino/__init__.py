"""OpenVINO: its layouts, and the adapter that runs it."""
