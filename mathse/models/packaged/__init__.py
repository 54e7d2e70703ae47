"""Models with weights in GGUF files, ONNX files or Python packages, opened as ordinary checkpoint folders."""
