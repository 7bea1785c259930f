"""Named tensors in safetensors files, read and written by ranges."""
