"""GGUF checkpoints: files, vocabularies and tensors."""
