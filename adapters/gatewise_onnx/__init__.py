"""ONNX: its layouts, and the adapter that runs it with ONNX Runtime."""
