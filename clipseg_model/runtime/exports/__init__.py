"""Exported models as folders: manifests, ONNX files, and the text tower's tokens."""
