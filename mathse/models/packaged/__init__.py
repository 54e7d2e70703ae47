"""Models whose weights lie in GGUF and ONNX files or in Python packages, opened as ordinary checkpoint folders."""
